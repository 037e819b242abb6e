//! SIGHUP: the parent replaces the workers one by one. The new worker is ready before the
//! old one is told to leave, so the number that serve never falls.

use std::collections::VecDeque;

use log::{Level, error, info};
use nix::unistd::Pid;

use super::Supervisor;
use crate::log::narrate::server as narrate;
use crate::scoreboard::ExitKind;
use crate::text::count;
use crate::worker::WorkerRole;

/// The workers that are still to be replaced.
#[derive(Debug, Default)]
pub struct RollingRestart {
    waiting: VecDeque<Pid>,
    /// The old worker and its replacement, until the replacement is ready.
    under_way: Option<(Pid, Pid)>,
}

impl RollingRestart {
    /// Replaces no more workers.
    pub fn stop(&mut self) {
        *self = RollingRestart::default();
    }

    /// The next worker to be replaced. None: there is none, or a replacement is not ready yet.
    pub fn next(&self) -> Option<Pid> {
        self.waiting.front().copied().filter(|_| self.under_way.is_none())
    }

    /// Is no worker to be replaced, or about to be?
    pub fn is_over(&self) -> bool {
        self.waiting.is_empty() && self.under_way.is_none()
    }

    /// A worker is ready, or has died. If it is the replacement under way, that ends, and the
    /// old worker is returned.
    pub fn finish(&mut self, pid: Pid) -> Option<Pid> {
        self.under_way.take_if(|(_, replacement)| *replacement == pid).map(|(old, _)| old)
    }
}

impl Supervisor<'_> {
    /// Begins to replace all workers that fill slots.
    pub(super) fn begin_rolling_restart(&mut self) {
        self.rolling_restart.waiting = self.children.in_place().collect();
        let workers = count(self.rolling_restart.waiting.len() as u64, "worker");
        let what = format!("replacing {workers} one by one");
        self.service_manager.reloading(&what);
        self.log_event(Level::Info, format!("SIGHUP: {what}"));
    }

    /// Tells the service manager when all workers are replaced, or stay.
    pub(super) fn finish_reload(&mut self) {
        if self.service_manager.is_reloading() && self.rolling_restart.is_over() {
            self.service_manager.ready(&self.serving());
        }
    }

    /// "serving 127.0.0.1:7777 with 4 workers".
    pub(super) fn serving(&self) -> String {
        format!("serving {} with {}", self.header.address, self.pool.size())
    }

    /// Forks the next replacement, unless one is not ready yet.
    pub(super) fn fork_next_replacement(&mut self) {
        while let Some(old) = self.rolling_restart.next()
            && self.may_add_process(1)
        {
            if let Some(slot) = self.children.slot_of(old) {
                let Some(replacement) = self.fork_worker(slot, WorkerRole::Serve) else { return };
                let what =
                    format!("worker {slot} (pid {replacement}) will replace pid {old} when it is ready");
                self.log_event(Level::Info, what);
                self.rolling_restart.under_way = Some((old, replacement));
            }
            // If it fills no slot any more, it has died, and is replaced already.
            self.rolling_restart.waiting.pop_front();
        }
    }

    /// A worker is ready. If it is the replacement, the old worker may leave.
    pub(super) fn worker_is_ready(&mut self, pid: Pid) {
        narrate::worker_is_ready(pid);
        self.report_to_old_server();
        // The service manager listens to the old server until that has named this one.
        if self.takeover.is_none() && !self.service_manager.is_reloading() {
            self.service_manager.ready(&self.serving());
        }
        if let Some(old) = self.rolling_restart.finish(pid) {
            info!("pid {pid} is ready, pid {old} may leave");
            self.terminate(old);
        }
    }

    /// A worker accepts no more, and finishes clients that may stay for long.
    pub(super) fn worker_retires(&mut self, pid: Pid) {
        if let Some(slot) = self.children.retire(pid) {
            let what = format!("worker {slot} (pid {pid}) accepts no more, and finishes its clients");
            self.log_event(Level::Info, what);
        }
    }

    /// The replacement has died before it was ready: the old worker stays.
    pub(super) fn replacement_has_died(&mut self, old: Pid, exit_kind: ExitKind) {
        if !self.children.restore(old) {
            // SIGTTOU has taken the slot away, or the old worker is dead as well.
            return self.terminate(old);
        }
        if exit_kind == ExitKind::Crashed {
            error!("SIGHUP: the new worker crashed, so the old ones stay");
            self.rolling_restart.stop();
        } else {
            self.rolling_restart.waiting.push_front(old);
        }
    }
}
