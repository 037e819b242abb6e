//! The parent reaps dead workers, explains each death, and acts on what follows from it.

use std::net::SocketAddr;
use std::time::Instant;

use log::{Level, debug};
use nix::unistd::Pid;

use super::Supervisor;
use super::respawn::{RestartDecision, WorkerRun};
use super::shutdown::Stage;
use crate::error::{Exit, strerror};
use crate::log::narrate::server as narrate;
use crate::scoreboard::ExitKind;
use crate::sys::process::{self, ChildEvent, WaitStatus};
use crate::text::count;

/// A child that has died.
#[derive(Debug)]
pub struct ReapedWorker {
    /// The slot that it fills, or filled before it was replaced.
    pub slot: usize,
    /// Did it fill the slot to the end? Then the slot is empty now.
    pub was_in_place: bool,
    /// When it was forked.
    pub born: Instant,
    /// Connections that it had accepted.
    pub connections: u64,
    /// How many clients it had.
    pub clients: u64,
    /// The client that it was serving, if there was only one.
    pub client: Option<SocketAddr>,
}

impl Supervisor<'_> {
    /// Reaps all dead children: one SIGCHLD may stand for many deaths. It also tells of those
    /// that were stopped or go on.
    pub(super) fn reap_workers(&mut self) {
        while let Some((pid, event)) = process::wait_child() {
            match event {
                ChildEvent::Died(status) => self.reap(pid, status),
                ChildEvent::Stopped => self.children.set_stopped(pid, true),
                ChildEvent::Continued => self.children.set_stopped(pid, false),
            }
        }
    }

    fn reap(&mut self, pid: Pid, status: WaitStatus) {
        let died = Instant::now();
        let Some(dead) = self.children.remove(pid, status, died) else {
            if self.new_server_has_died(pid, status) {
                return;
            }
            // Process 1 of a container inherits orphans that it has not forked.
            return debug!("reaped an unknown child, pid {pid}");
        };
        narrate::waitpid(pid);
        let (slot, mut exit_kind, connections) = (dead.slot, ExitKind::of(status), dead.connections);
        let (lived, connected) = (died - dead.born, count(connections, "connection"));
        let cut = match (dead.clients, dead.client) {
            (0, _) => String::new(),
            (_, Some(client)) => format!(", its client {client} is cut off"),
            (1, None) => ", its client is cut off".into(),
            (clients, None) => format!(", its {clients} clients are cut off"),
        };
        let level = if exit_kind == ExitKind::Left { Level::Info } else { Level::Warn };
        let what = format!("worker {slot} (pid {pid}) {status} after {lived:.1?} and {connected}{cut}");
        self.log_event(level, what);
        self.died_while_draining(pid, exit_kind, dead.clients > 0);
        if exit_kind == ExitKind::Crashed && self.repair_socket_after(dead.born) {
            // What broke the socket came from outside: no reason to wait before the next fork.
            exit_kind = ExitKind::Killed;
        }
        if let Some(old) = self.rolling_restart.finish(pid) {
            self.replacement_has_died(old, exit_kind);
        } else if dead.was_in_place {
            self.schedule_replacement(
                slot,
                status,
                WorkerRun { exit_kind, born: dead.born, died, connections },
            );
        }
    }

    /// Decides when the slot of a dead worker is filled again.
    fn schedule_replacement(&mut self, slot: usize, status: WaitStatus, run: WorkerRun) {
        let others_stable = self.children.has_stable_worker(run.died);
        match self.respawn.after(run, others_stable) {
            RestartDecision::Now => {} // The slot has been due since the death.
            RestartDecision::At(due) => {
                let wait = due - run.died;
                let what = format!("worker {slot} is replaced in {wait:.1?}: it crashed at its start");
                self.log_event(Level::Info, what);
                self.children.wait_until(slot, due);
            }
            RestartDecision::GiveUp => {
                let what = format!(
                    "giving up: workers keep crashing at their start; the last one {status}; look at what it \
                     has logged, with -v for more"
                );
                self.log_event(Level::Error, what);
                self.begin_shutdown(Exit::GaveUp, None);
            }
        }
    }

    /// Repairs the listening socket, if it is broken: one process can break it for all that
    /// share it. Returns whether a worker that was forked at `born` may have crashed for that
    /// reason: workers that are older than the repair may have met the same, and crash next.
    fn repair_socket_after(&mut self, born: Instant) -> bool {
        let (Stage::Running, Some(listener)) = (&self.stage, &self.listener) else { return false };
        match listener.repair() {
            Ok(None) => {}
            Ok(Some(found)) => {
                self.log_event(Level::Warn, format!("the listening socket {found}: put right"));
                self.socket_repaired_at = Some(Instant::now());
            }
            Err(error) => {
                let (address, port) = (listener.address(), listener.address().port());
                let what = format!(
                    "cannot listen on {address} again: {}; `lsof -i :{port}` shows which process has the port \
                     now, end that",
                    strerror(&error)
                );
                self.log_event(Level::Error, what);
            }
        }
        self.socket_repaired_at.is_some_and(|repaired_at| born <= repaired_at)
    }
}
