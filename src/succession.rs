//! SIGHUP: the workers are replaced one by one, and the new one is ready before
//! the old one is told to leave, so that never fewer serve.
//!
//! Who is whose heir is kept here; the supervisor forks and tells.

use std::collections::VecDeque;

use nix::unistd::Pid;

/// The workers that are still to be replaced.
#[derive(Debug, Default)]
pub struct Succession {
    waiting: VecDeque<Pid>,
    /// The one under way: the old one, and the heir who is not ready yet.
    under_way: Option<(Pid, Pid)>,
}

impl Succession {
    /// All of these are to be replaced; whoever waited before is forgotten.
    pub fn begin(&mut self, workers: impl Iterator<Item = Pid>) -> usize {
        self.waiting = workers.collect();
        self.waiting.len()
    }

    /// Nobody is replaced any more.
    pub fn end(&mut self) {
        *self = Succession::default();
    }

    /// Who is next to be replaced, unless an heir is still awaited.
    pub fn next(&self) -> Option<Pid> {
        self.waiting.front().copied().filter(|_| self.under_way.is_none())
    }

    /// The next one has died by itself, and is replaced already.
    pub fn skip(&mut self) {
        self.waiting.pop_front();
    }

    /// The next one has an heir.
    pub fn heir_forked(&mut self, heir: Pid) {
        self.under_way = self.waiting.pop_front().map(|old| (old, heir));
    }

    /// Somebody is ready, or has died. If it is the heir who was awaited: the
    /// old one, who may leave now, or must stay.
    pub fn settle(&mut self, pid: Pid) -> Option<Pid> {
        self.under_way.take_if(|(_, heir)| *heir == pid).map(|(old, _)| old)
    }

    /// The heir was killed: the old one is to be replaced all the same.
    pub fn again(&mut self, old: Pid) {
        self.waiting.push_front(old);
    }
}
