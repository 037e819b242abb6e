//! The parent forks workers, and each child takes over what a worker needs.

use std::time::{Duration, Instant};

use log::{Level, info, warn};
use nix::errno::Errno;
use nix::unistd::Pid;

use super::Supervisor;
use crate::error::strerror;
use crate::log::narrate::server as narrate;
use crate::scoreboard::Row;
use crate::sys::process;
use crate::text::count;
use crate::worker::{self, WorkerContext, WorkerRole};

/// From a failed fork to the next attempt.
const FORK_RETRY: Duration = Duration::from_millis(250);

impl Supervisor<'_> {
    /// Fills the empty slots that are due.
    pub(super) fn spawn_missing_workers(&mut self) {
        let mut new = 0;
        while let Some((slot, last)) = self.children.next_empty_slot(Instant::now()) {
            let Some(pid) = self.fork_worker(slot, WorkerRole::Serve) else { break };
            match last {
                None => {
                    new += 1;
                    info!("worker {slot} (pid {pid}) forked");
                }
                Some(last) => {
                    let why = last.died.map_or("which finishes its clients".into(), |died| {
                        format!("{:.1?} after its death was seen", died.elapsed())
                    });
                    let what = format!("worker {slot} (pid {pid}) replaces pid {}, {why}", last.pid);
                    self.log_event(Level::Info, what);
                }
            }
        }
        if new > 0 {
            self.scoreboard.record(&format!("{} forked", count(new, "worker")));
        }
    }

    /// Forks a child. None: it is not possible now, and will be tried again.
    pub(super) fn fork_worker(&mut self, slot: usize, role: WorkerRole) -> Option<Pid> {
        let now = Instant::now();
        if self.fork_retry_at.is_some_and(|retry_at| now < retry_at) {
            return None;
        }
        let forked = match self.children.take_row(slot) {
            None => Err(Errno::EAGAIN), // Thousands of workers are still leaving.
            Some(row) => process::fork(|| self.run_child(slot, row, role))
                .inspect(|pid| self.children.add(*pid, slot, row, now))
                .inspect_err(|_| self.children.free_row(row, slot, None)),
        };
        match forked {
            Ok(pid) => {
                narrate::fork(pid, slot);
                if self.fork_retry_at.take().is_some() {
                    info!("fork works again");
                }
                Some(pid)
            }
            Err(error) => {
                if self.fork_retry_at.is_none() {
                    warn!(
                        "cannot fork worker {slot}: {}; trying again every {FORK_RETRY:?}; raise the limit on \
                         processes (ulimit -u), free some memory, or run fewer --workers",
                        strerror(&error.into())
                    );
                }
                self.fork_retry_at = Some(now + FORK_RETRY);
                None
            }
        }
    }

    /// The child, from the fork to its exit code. It closes the descriptors that are only the
    /// parent's, and leaves the rest of what it has inherited alone.
    fn run_child(&mut self, slot: usize, row: Row, role: WorkerRole) -> u8 {
        let (Some(events), Some(listener)) = (self.events.take(), self.listener.take()) else { return 1 };
        let code = worker::run(WorkerContext {
            slot,
            role,
            row: self.scoreboard.row_writer(row),
            scoreboard: *self.scoreboard,
            listener,
            options: self.config,
            credentials: self.credentials.as_ref(),
            parent: self.pid,
            null: &self.null,
            reports: events.into_report_writer(),
        });
        narrate::exit(code);
        code
    }
}
