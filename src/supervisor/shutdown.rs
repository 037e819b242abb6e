//! The end of the server: in order, or by force.
//!
//! In order: the workers are told to leave, and told again; when the last one has
//! left, one more sweeps the accept queue, if clients have come meanwhile. By
//! force: they are killed, because the grace is over or somebody says so.

use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::Signal;

use super::Supervisor;
use crate::exit::Exit;
use crate::listener::Listener;
use crate::logger::count;
use crate::scoreboard::Phase;
use crate::sys::socket::{self, SMALLEST_BACKLOG};
use crate::worker::Errand;

/// While shutting down, workers are told to leave again and again: one may have
/// been stopped (SIGSTOP) after it was told.
const REMIND: Duration = Duration::from_millis(500);

/// Where the server is in its life.
#[derive(Debug)]
pub(super) enum Stage {
    Running,
    /// All have been told to leave; at the deadline they are killed.
    Draining(Drain),
    /// All have been killed; they are only reaped.
    Ending(Exit),
}

#[derive(Debug)]
pub(super) struct Drain {
    pub(super) deadline: Instant,
    pub(super) remind_at: Instant,
    /// Accepted before it began.
    connections_before: u64,
    /// The exit status if all goes well.
    exit: Exit,
}

impl Supervisor<'_> {
    /// Begins to shut down in order, to end with `exit` if all goes well.
    pub(super) fn drain(&mut self, exit: Exit) {
        self.children.remove_all_slots();
        self.succession.end();
        self.scoreboard.enter(Phase::Draining);
        // Who comes from now on may find no server any more: so few as possible.
        if let Some(listener) = &self.listener {
            listener.resize(SMALLEST_BACKLOG);
            self.scoreboard.set_queue_limit(socket::queue_limit(SMALLEST_BACKLOG));
        }
        let now = Instant::now();
        self.stage = Stage::Draining(Drain {
            deadline: now + self.options.grace,
            remind_at: now + REMIND,
            connections_before: self.scoreboard.served().connections,
            exit,
        });
        self.children.pids().for_each(|pid| self.tell_to_leave(pid));
    }

    /// Ends all workers without asking. The exit status says whether that cuts
    /// any client, as far as the scoreboard tells; a server that gave up says so.
    pub(super) fn end(&mut self) {
        let cut = self.children.is_any_busy() || self.listener.as_ref().is_some_and(Listener::has_waiting);
        let exit = match &self.stage {
            Stage::Ending(exit) => *exit,
            Stage::Draining(Drain { exit: Exit::GaveUp, .. }) => Exit::GaveUp,
            _ if cut => Exit::Forced,
            _ => Exit::Orderly,
        };
        self.children.remove_all_slots();
        self.listener = None;
        self.stage = Stage::Ending(exit);
        self.children.pids().for_each(|pid| self.send(pid, Signal::SIGKILL));
    }

    /// Does what is due of the shutdown. Some: it is over, and this is how.
    pub(super) fn go_on_shutting_down(&mut self) -> Option<Exit> {
        let (now, workers) = (Instant::now(), self.children.pids().len());
        match &mut self.stage {
            Stage::Draining(drain) if workers == 0 => {
                let (before, exit) = (drain.connections_before, drain.exit);
                if !self.needs_last_sweep(before) {
                    self.listener = None;
                    self.stage = Stage::Ending(exit);
                } else if !self.begin_last_sweep() {
                    self.end();
                }
            }
            Stage::Draining(drain) if drain.deadline <= now => {
                let workers = count(workers as u64, "worker");
                let grace = humantime::format_duration(self.options.grace);
                self.note(
                    Level::Warn,
                    format!("{grace} are over: killing {workers}; give clients longer with --grace"),
                );
                self.end();
            }
            Stage::Draining(drain) if drain.remind_at <= now => {
                drain.remind_at = now + REMIND;
                self.children.pids().for_each(|pid| self.tell_to_leave(pid));
            }
            _ => {}
        }
        match self.stage {
            Stage::Ending(exit) if self.children.pids().len() == 0 => Some(exit),
            _ => None,
        }
    }

    /// All have left. If clients have come during the shutdown, more may be in
    /// the accept queue, or about to.
    fn needs_last_sweep(&self, connections_before: u64) -> bool {
        let came = self.scoreboard.served().connections != connections_before;
        self.listener.as_ref().is_some_and(|listener| came || listener.has_waiting())
    }

    /// One more worker takes whoever comes. Our own copy of the socket is closed
    /// before, so that it is gone in the instant when that worker closes the
    /// other. False: it cannot be forked.
    fn begin_last_sweep(&mut self) -> bool {
        self.fork_again_at = None; // There is no later.
        let Some(pid) = self.fork_worker(0, Errand::LastSweep) else { return false };
        self.listener = None;
        self.note(Level::Info, format!("worker 0 (pid {pid}) forked for the last sweep of the accept queue"));
        true
    }
}
