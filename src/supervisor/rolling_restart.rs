//! SIGHUP: the workers are replaced one by one, and the new one is ready before
//! the old one is told to leave, so that never fewer serve.
//!
//! Who is whose replacement is kept here; the supervisor forks and tells.

use std::collections::VecDeque;

use nix::unistd::Pid;

/// The workers that are still to be replaced.
#[derive(Debug, Default)]
pub struct RollingRestart {
    waiting: VecDeque<Pid>,
    /// The one under way: the old one, and the replacement who is not ready yet.
    under_way: Option<(Pid, Pid)>,
}

impl RollingRestart {
    /// All of these are to be replaced; whoever waited before is forgotten.
    pub fn begin(&mut self, workers: impl Iterator<Item = Pid>) -> usize {
        self.waiting = workers.collect();
        self.waiting.len()
    }

    /// Nobody is replaced any more.
    pub fn end(&mut self) {
        *self = RollingRestart::default();
    }

    /// Who is next to be replaced, unless an replacement is still awaited.
    pub fn next(&self) -> Option<Pid> {
        self.waiting.front().copied().filter(|_| self.under_way.is_none())
    }

    /// The next one has died by itself, and is replaced already.
    pub fn skip(&mut self) {
        self.waiting.pop_front();
    }

    /// The next one has an replacement.
    pub fn replacement_forked(&mut self, replacement: Pid) {
        self.under_way = self.waiting.pop_front().map(|old| (old, replacement));
    }

    /// Somebody is ready, or has died. If it is the replacement who was awaited: the
    /// old one, who may leave now, or must stay.
    pub fn settle(&mut self, pid: Pid) -> Option<Pid> {
        self.under_way.take_if(|(_, replacement)| *replacement == pid).map(|(old, _)| old)
    }

    /// The replacement was killed: the old one is to be replaced all the same.
    pub fn again(&mut self, old: Pid) {
        self.waiting.push_front(old);
    }
}
