//! What the parent does on each signal, and SIGHUP's replacing of the workers.

use log::{Level, error, info};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Supervisor;
use super::shutdown::Stage;
use crate::cli::MAX_WORKERS;
use crate::error::{Exit, strerror};
use crate::explain;
use crate::log::{answer, count};
use crate::monitor::status;
use crate::scoreboard::snapshot::Snapshot;
use crate::supervisor::respawn::ExitKind;
use crate::worker::WorkerRole;

/// What the parent wants of a worker by a signal.
fn what_for(signal: Signal) -> &'static str {
    match signal {
        Signal::SIGTERM => "asks the worker to finish its client and leave",
        Signal::SIGCONT => "lets it go on, should it be stopped",
        _ => "ends it at once",
    }
}

impl Supervisor<'_> {
    pub(super) fn handle_signal(&mut self, signal: Signal) {
        let running = matches!(self.stage, Stage::Running);
        match signal {
            Signal::SIGCHLD => {} // They are reaped already.
            Signal::SIGUSR1 => {
                let snapshot = Snapshot::take(*self.scoreboard, &self.header);
                let lines = status::table(&snapshot);
                lines.iter().filter(|line| !line.is_empty()).for_each(|line| answer(line));
            }
            Signal::SIGQUIT => {
                self.log_event(Level::Warn, "SIGQUIT: ending at once".into());
                self.kill_all();
            }
            Signal::SIGTERM | Signal::SIGINT if running => {
                let workers = count(self.children.pids().len() as u64, "worker");
                let grace = humantime::format_duration(self.options.grace);
                self.log_event(
                    Level::Info,
                    format!("{signal}: shutting down, {workers} to leave within {grace}"),
                );
                self.drain(Exit::Success);
            }
            Signal::SIGTERM | Signal::SIGINT => self.signalled_again(signal),
            _ if !running => info!("{signal}: too late, shutting down"),
            Signal::SIGHUP => {
                let workers = count(self.rolling_restart.begin(self.children.in_place()) as u64, "worker");
                self.log_event(Level::Info, format!("SIGHUP: replacing {workers} one by one"));
            }
            Signal::SIGTTIN if self.children.slots() == usize::from(MAX_WORKERS) => {
                self.log_event(Level::Warn, format!("SIGTTIN: {MAX_WORKERS} workers is the most"));
            }
            Signal::SIGTTIN => {
                self.children.add_slot();
                self.note_number_of_workers(signal);
            }
            Signal::SIGTTOU if self.children.slots() == 1 => {
                self.log_event(Level::Warn, "SIGTTOU: one worker is the least".into());
            }
            Signal::SIGTTOU => {
                let worker = self.children.remove_slot();
                self.note_number_of_workers(signal);
                worker.into_iter().for_each(|pid| self.terminate(pid));
            }
            _ => {}
        }
    }

    fn note_number_of_workers(&self, signal: Signal) {
        let workers = count(self.children.slots() as u64, "worker");
        self.log_event(Level::Info, format!("{signal}: {workers} from now on"));
    }

    /// Tells a worker to finish its client and leave. CONT follows TERM, since
    /// a stopped process notices nothing else.
    pub(super) fn terminate(&self, pid: Pid) {
        self.send(pid, Signal::SIGTERM);
        self.send(pid, Signal::SIGCONT);
    }

    pub(super) fn send(&self, pid: Pid, signal: Signal) {
        if !self.children.contains(pid) {
            return;
        }
        // Before the call, or the worker's answer could stand above it.
        explain!("kill({pid}, {signal}): {}", what_for(signal));
        if let Err(error) = kill(pid, signal) {
            error!("cannot send {signal} to pid {pid}: {}", strerror(&error.into()));
        }
    }

    // SIGHUP: one is replaced after the other.

    /// Forks the next replacement, unless one is awaited.
    pub(super) fn replace_the_next(&mut self) {
        while let Some(old) = self.rolling_restart.next() {
            let Some(slot) = self.children.slot_of(old) else {
                self.rolling_restart.skip();
                continue;
            };
            let Some(replacement) = self.fork_worker(slot, WorkerRole::Serve) else { return };
            self.log_event(
                Level::Info,
                format!("worker {slot} (pid {replacement}) will replace pid {old} when it is ready"),
            );
            self.rolling_restart.replacement_forked(replacement);
        }
    }

    /// Somebody is ready; if it is the replacement, the old one may leave.
    pub(super) fn replacement_is_ready(&mut self, pid: Pid) {
        if let Some(old) = self.rolling_restart.settle(pid) {
            info!("pid {pid} is ready, pid {old} may leave");
            self.terminate(old);
        }
    }

    /// The replacement died before he was ready: the old one stays.
    pub(super) fn replacement_has_died(&mut self, old: Pid, exit_kind: ExitKind) {
        if !self.children.restore(old) {
            // SIGTTOU has taken the slot away, or the old one is dead, too.
            return self.terminate(old);
        }
        if exit_kind == ExitKind::Crashed {
            error!("SIGHUP: the new worker crashed, so the old ones stay");
            self.rolling_restart.end();
        } else {
            self.rolling_restart.again(old);
        }
    }
}
