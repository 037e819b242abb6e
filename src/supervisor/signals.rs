//! What the parent does on each signal, and the signals that it sends.

use std::time::Instant;

use log::{Level, error, info};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Supervisor;
use super::shutdown::Stage;
use crate::config::MAX_WORKERS;
use crate::error::{Exit, strerror};
use crate::log::answer;
use crate::log::narrate::server as narrate;
use crate::monitor::status;
use crate::scoreboard::snapshot::Snapshot;
use crate::text::count;

impl Supervisor<'_> {
    pub(super) fn handle_signal(&mut self, signal: Signal) {
        let running = matches!(self.stage, Stage::Running);
        match signal {
            Signal::SIGCHLD => {} // The children are reaped already.
            Signal::SIGUSR1 => {
                let snapshot = Snapshot::take(*self.scoreboard, &self.header);
                let lines = status::table(&snapshot);
                lines.iter().filter(|line| !line.is_empty()).for_each(|line| answer(line));
            }
            Signal::SIGQUIT => {
                self.log_event(Level::Warn, "SIGQUIT: ending at once".into());
                self.end_upgrade(signal);
                self.kill_all();
            }
            Signal::SIGTERM | Signal::SIGINT if running => {
                let workers = count(self.children.len(), "worker");
                let grace = humantime::format_duration(self.config.grace);
                let what = format!("{signal}: shutting down, {workers} to leave within {grace}");
                self.log_event(Level::Info, what);
                self.end_upgrade(Signal::SIGTERM);
                self.begin_shutdown(Exit::Success, Some(Instant::now()));
            }
            Signal::SIGTERM | Signal::SIGINT => self.signalled_again(signal),
            _ if !running => info!("{signal}: too late, shutting down"),
            Signal::SIGHUP => {
                crate::log::reopen(&self.config.log);
                self.begin_rolling_restart();
            }
            Signal::SIGUSR2 => self.begin_upgrade(),
            Signal::SIGTTIN if self.pool.limits.least == usize::from(MAX_WORKERS) => {
                self.log_event(Level::Warn, format!("SIGTTIN: {MAX_WORKERS} workers is the most"));
            }
            Signal::SIGTTIN => {
                self.set_least(self.pool.limits.least + 1);
                self.log_pool_size(signal);
            }
            Signal::SIGTTOU if self.pool.limits.least == 1 => {
                self.log_event(Level::Warn, "SIGTTOU: one worker is the least".into());
            }
            Signal::SIGTTOU => {
                self.set_least(self.pool.limits.least - 1);
                self.log_pool_size(signal);
            }
            _ => {}
        }
    }

    fn log_pool_size(&self, signal: Signal) {
        self.log_event(Level::Info, format!("{signal}: {} from now on", self.pool.size()));
    }

    /// Tells a worker to finish its clients and leave. CONT follows TERM, because a stopped
    /// process handles no other signal.
    pub(super) fn terminate(&self, pid: Pid) {
        self.send(pid, Signal::SIGTERM);
        self.send(pid, Signal::SIGCONT);
    }

    /// Sends a signal, but only to a child that is not reaped: no other process can have its
    /// pid.
    pub(super) fn send(&self, pid: Pid, signal: Signal) {
        if !self.children.contains(pid) {
            return;
        }
        // Before the call, or the worker's answer could come first in the log.
        narrate::kill(pid, signal);
        if let Err(error) = kill(pid, signal) {
            error!("cannot send {signal} to pid {pid}: {}", strerror(&error.into()));
        }
    }
}
