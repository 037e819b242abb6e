//! The end of the server: in order, or by force.
//!
//! In order: the workers are told to leave, again and again. They accept no more, and finish
//! what they have. If there is a connection in the accept queue meanwhile, one more worker is
//! forked, the drainer, which drains the queue and closes it. If the queue had overflowed
//! before, the drainer first waits for clients that the overflow has delayed. By force: all
//! are killed, because the grace is over or a signal demands it.

use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::overflow::Overflow;
use super::{OTHER_DESCRIPTORS, Supervisor};
use crate::error::Exit;
use crate::listener::Listener;
use crate::scoreboard::{ExitKind, Phase};
use crate::sys::descriptors::allow_descriptors;
use crate::sys::socket::{accept_queue, queue_limit};
use crate::text::count;
use crate::worker::WorkerRole;

/// From one SIGTERM to the workers to the next: a worker may have been stopped (SIGSTOP).
const RESEND_AFTER: Duration = Duration::from_millis(500);

/// A second signal so soon counts as the same one: some tools send it to a process and then
/// to its group, and a terminal sends it to the group.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

/// The least length of the accept queue while shutting down: a full queue would drop the last
/// segment of handshakes. The kernel's own limit is mostly 4096 (net.core.somaxconn).
const SHUTDOWN_BACKLOG: i32 = 4096;

/// The stage of the server's life.
#[derive(Debug)]
pub(super) enum Stage {
    /// Dead workers are replaced.
    Running,
    /// All workers have been told to leave; at the deadline they are killed.
    Draining(Drain),
    /// No worker is needed any more; those that are left were killed, and are reaped.
    Ending(Exit),
}

/// An orderly shutdown.
#[derive(Debug)]
pub(super) struct Drain {
    /// When a signal has first asked for it; None: it has another reason.
    signalled_at: Option<Instant>,
    /// When it began.
    began: Instant,
    /// When workers that are left are killed.
    pub(super) deadline: Instant,
    /// When the workers are told to leave again.
    pub(super) resend_at: Instant,
    /// Connections that were accepted before it began.
    connections_before: u64,
    /// None: the accept queue has not overflowed, or that is over.
    pub(super) overflow: Option<Overflow>,
    /// The worker that drains the accept queue; None: it is not forked, or dead.
    pub(super) drainer: Option<Pid>,
    /// The exit status if all goes well.
    exit: Exit,
}

impl Supervisor<'_> {
    /// Begins to shut down in order, to end with `exit` if all goes well. `signalled_at`: when a
    /// signal has asked for it; None: there is another reason.
    pub(super) fn begin_shutdown(&mut self, exit: Exit, signalled_at: Option<Instant>) {
        self.children.remove_all_slots();
        self.rolling_restart.stop();
        self.service_manager.stopping("finishing the clients that are connected");
        self.pool.watches_queue = false;
        self.scoreboard.set_wants_full(false);
        if self.listener.as_ref().is_some_and(Listener::stays_open) {
            self.pass_queue_on();
        }
        let now = Instant::now();
        self.make_room();
        let has_overflowed = self.look_for_overflow();
        self.scoreboard.set_phase(Phase::Draining);
        self.stage = Stage::Draining(Drain {
            signalled_at,
            began: now,
            deadline: now + self.config.grace,
            resend_at: now + RESEND_AFTER,
            connections_before: self.scoreboard.served().connections,
            overflow: has_overflowed.then(|| Overflow::new(now, self.config.grace)),
            drainer: None,
            exit,
        });
        self.children.pids().for_each(|pid| self.terminate(pid));
    }

    /// Leaves the accept queue to another server, which has the same listening socket. Call it
    /// before the phase changes: workers look at both.
    pub(super) fn pass_queue_on(&mut self) {
        self.look_for_overflow();
        self.scoreboard.pass_queue_on();
        self.listener = None;
    }

    /// Makes the accept queue as long as possible, so that no handshake is dropped any more.
    fn make_room(&self) {
        let Some(listener) = &self.listener else { return };
        let backlog = self.config.backlog.max(SHUTDOWN_BACKLOG);
        listener.resize(backlog);
        self.scoreboard.set_queue_limit(queue_limit(backlog));
        allow_descriptors(backlog as u64 + OTHER_DESCRIPTORS);
    }

    /// SIGTERM or SIGINT during the shutdown.
    pub(super) fn signalled_again(&mut self, signal: Signal) {
        let signalled_at = match &mut self.stage {
            Stage::Draining(drain) => {
                let before = drain.signalled_at;
                drain.signalled_at.get_or_insert_with(Instant::now);
                before
            }
            _ => None,
        };
        match signalled_at {
            None if matches!(self.stage, Stage::Draining(_)) => {
                self.log_event(Level::Info, format!("{signal}: leaving in order already"));
            }
            Some(first) if first.elapsed() < SAME_SIGNAL => {
                self.log_event(Level::Info, format!("{signal} within {SAME_SIGNAL:?}: the same one"));
            }
            _ => {
                self.log_event(Level::Warn, format!("{signal} again: ending at once"));
                self.kill_all();
            }
        }
    }

    /// Kills all workers. The exit status tells whether that cuts a connection, as far as is
    /// known, or that the server gave up.
    pub(super) fn kill_all(&mut self) {
        let cut = self.children.is_any_busy() || self.has_waiting();
        let exit = match &self.stage {
            Stage::Ending(exit) => *exit,
            Stage::Draining(Drain { exit: Exit::Success, .. }) | Stage::Running if cut => Exit::Forced,
            Stage::Draining(Drain { exit, .. }) => *exit,
            Stage::Running => Exit::Success,
        };
        self.children.remove_all_slots();
        self.service_manager.stopping("ending at once");
        self.listener = None;
        self.stage = Stage::Ending(exit);
        self.children.pids().for_each(|pid| self.send(pid, Signal::SIGKILL));
    }

    /// Is there a connection in the accept queue? If only the drainer has the socket, the
    /// kernel's list tells (Linux).
    fn has_waiting(&self) -> bool {
        match &self.listener {
            _ if self.scoreboard.queue_passes_on() => false,
            Some(listener) => listener.has_waiting(),
            None => accept_queue(self.pid.as_raw(), self.header.inode).is_some_and(|queue| queue > 0),
        }
    }

    /// A connection was cut, or may have been.
    pub(super) fn mark_cut(&mut self) {
        if let Stage::Draining(drain) = &mut self.stage
            && drain.exit == Exit::Success
        {
            drain.exit = Exit::Forced;
        }
    }

    /// Records a child's death during the shutdown. `was_busy`: it had a client.
    pub(super) fn died_while_draining(&mut self, pid: Pid, exit_kind: ExitKind, was_busy: bool) {
        let Stage::Draining(drain) = &mut self.stage else { return };
        let was_drainer = drain.drainer.take_if(|drainer| *drainer == pid).is_some();
        if was_drainer {
            // The next drainer, if one is needed, only drains: serving may have made this one crash.
            drain.overflow = None;
        }
        // A worker killed from outside does not change the exit status. A killed drainer does: it
        // may have had the last copy of the listening socket.
        let cut = was_busy || (was_drainer && self.listener.is_none());
        if cut && (exit_kind == ExitKind::Crashed || (was_drainer && exit_kind == ExitKind::Killed)) {
            self.mark_cut();
        }
    }

    /// May a drainer be forked as soon as there is a connection?
    pub(super) fn may_fork_drainer(&self) -> bool {
        matches!(&self.stage, Stage::Draining(drain) if drain.drainer.is_none())
            && self.fork_retry_at.is_none_or(|retry_at| retry_at <= Instant::now())
    }

    /// Takes the next step of the shutdown, if there is one. Some: it is over, with this exit
    /// status.
    pub(super) fn step_shutdown(&mut self) -> Option<Exit> {
        let (now, workers) = (Instant::now(), self.children.len());
        match &mut self.stage {
            Stage::Draining(drain) if drain.deadline <= now && (workers > 0 || self.listener.is_some()) => {
                let workers = count(workers, "worker");
                let grace = humantime::format_duration(self.config.grace);
                let what = format!("{grace} are over: killing {workers}; give clients longer with --grace");
                self.log_event(Level::Warn, what);
                self.kill_all();
            }
            Stage::Draining(drain) => {
                if drain.resend_at <= now {
                    drain.resend_at = now + RESEND_AFTER;
                    // The drainer is told later, when the overflow is over.
                    let drainer = drain.overflow.as_ref().and(drain.drainer);
                    let others = self.children.pids().filter(|pid| Some(*pid) != drainer);
                    others.for_each(|pid| self.terminate(pid));
                }
                self.step_drain();
            }
            _ => {}
        }
        match self.stage {
            Stage::Ending(exit) if self.children.is_empty() && !self.names_are_passing() => Some(exit),
            _ => None,
        }
    }

    /// Forks the drainer if there is a queue to drain, tells it when the overflow is over, and
    /// ends the shutdown when all workers have left.
    fn step_drain(&mut self) {
        let Stage::Draining(drain) = &mut self.stage else { return };
        // Another process may have shut it down, which resets the connections in its queue.
        self.listener.take_if(|listener| !listener.is_listening());
        if let Some(drainer) = drain.drainer {
            if let Some(overflow) = drain.overflow.take_if(|overflow| overflow.until <= Instant::now()) {
                self.end_overflow(drainer, overflow);
            }
            return;
        }
        let (all_left, overflowed) = (self.children.is_empty(), drain.overflow.is_some());
        // If connections have come during the shutdown, more may follow.
        let came = self.scoreboard.served().connections != drain.connections_before;
        let may_come = all_left && came && self.fork_retry_at.is_none();
        let must_drain = |listener: &Listener| overflowed || may_come || listener.has_waiting();
        if self.listener.as_ref().is_some_and(must_drain) {
            self.fork_drainer(overflowed);
        } else if all_left {
            self.listener = None;
            self.stage = Stage::Ending(drain.exit);
        }
    }

    fn fork_drainer(&mut self, overflowed: bool) {
        let role = if overflowed { WorkerRole::DrainOverflow } else { WorkerRole::FinalDrain };
        let Some(pid) = self.fork_worker(0, role) else { return };
        if !overflowed {
            self.listener = None; // It must be the last to close it: as in end_overflow.
        }
        self.log_event(Level::Info, format!("worker 0 (pid {pid}) forked to drain the accept queue"));
        let Stage::Draining(drain) = &mut self.stage else { return };
        drain.drainer = Some(pid);
        if let Some(overflow) = &mut drain.overflow {
            // Last: with many connections the kernel's list takes long to read.
            overflow.note_half_open(drain.began, self.header.address);
        }
    }
}
