//! The end of the server: in order, or by force.
//!
//! In order: the workers are told to leave, and told again. They accept no more, and
//! finish what they have. If a connection waits in the accept queue meanwhile, one more
//! worker is forked, which drains the queue and closes it. If the queue had overflowed
//! before, that worker first serves what the overflow has delayed, until the clients
//! have had time to be heard of. By force: all are killed, because the grace is over or
//! a signal says so.

use std::collections::HashSet;
use std::mem;
use std::time::{Duration, Instant};

use log::Level;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Supervisor;
use crate::error::Exit;
use crate::log::count;
use crate::scoreboard::Phase;
use crate::supervisor::respawn::ExitKind;
use crate::sys::process::allow_descriptors;
use crate::sys::socket::{accept_queue, half_open, queue_limit};
use crate::worker::WorkerRole;

/// While shutting down, workers are told to leave again and again: one may have
/// been stopped (SIGSTOP) after it was told.
const RESEND_AFTER: Duration = Duration::from_millis(500);

/// A signal that comes again so soon is the same one: some tools send it to a process
/// and then to its group, and a terminal to the group.
const SAME_SIGNAL: Duration = Duration::from_millis(200);

/// The accept queue while shutting down: room for all, since a full queue drops the end
/// of handshakes. The kernel's own limit is mostly 4096 (net.core.somaxconn).
const LONGEST_BACKLOG: i32 = 4096;

/// Descriptors that the final drain has besides its connections, and some to spare.
const OTHER_DESCRIPTORS: u64 = 64;

/// After an overflow: a client whose handshake was cut short sends its first bytes again
/// after 0.2, 0.6, 1.4 s, and the kernel repeats its half of the handshake after 1 s.
const RETRANSMISSION: Duration = Duration::from_secs(2);

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
    began: Instant,
    pub(super) deadline: Instant,
    pub(super) resend_at: Instant,
    /// Accepted before it began.
    connections_before: u64,
    /// None: the accept queue has not overflowed, or that is over.
    pub(super) overflow: Option<Overflow>,
    /// The worker that drains the accept queue.
    drainer: Option<Pid>,
    /// The exit status if all goes well.
    exit: Exit,
}

/// The accept queue had overflowed: clients have time until then to send again.
#[derive(Debug)]
pub(super) struct Overflow {
    pub(super) until: Instant,
    /// The handshakes that were open when the shutdown began.
    half_open: HashSet<String>,
}

impl Supervisor<'_> {
    /// Begins to shut down in order, to end with `exit` if all goes well.
    pub(super) fn drain(&mut self, exit: Exit) {
        self.children.remove_all_slots();
        self.rolling_restart.end();
        self.scoreboard.set_phase(Phase::Draining);
        let now = Instant::now();
        let overflow = self.overflow(now);
        self.make_room();
        self.stage = Stage::Draining(Drain {
            began: now,
            deadline: now + self.options.grace,
            resend_at: now + RESEND_AFTER,
            connections_before: self.scoreboard.served().connections,
            overflow,
            drainer: None,
            exit,
        });
        self.children.pids().for_each(|pid| self.terminate(pid));
    }

    /// What is to be waited for, if the accept queue has ever overflowed: for longer when
    /// handshakes are open, so that it may overflow now.
    fn overflow(&self, now: Instant) -> Option<Overflow> {
        self.listener.as_ref()?.drops().filter(|drops| *drops > 0)?;
        let (half_open, longest) = (half_open(self.header.address), self.options.grace / 2);
        let wait = if half_open.is_empty() { RETRANSMISSION.min(longest) } else { longest };
        Some(Overflow { until: now + wait, half_open })
    }

    /// Makes the accept queue as long as can be, so that no handshake is dropped any more.
    fn make_room(&self) {
        let Some(listener) = &self.listener else { return };
        let backlog = self.options.backlog.max(LONGEST_BACKLOG);
        listener.resize(backlog);
        self.scoreboard.set_queue_limit(queue_limit(backlog));
        allow_descriptors(LONGEST_BACKLOG as u64 + OTHER_DESCRIPTORS);
    }

    /// SIGTERM or SIGINT during the shutdown.
    pub(super) fn signalled_again(&mut self, signal: Signal) {
        match &self.stage {
            Stage::Draining(drain) if drain.began.elapsed() < SAME_SIGNAL => {
                self.log_event(Level::Info, format!("{signal} within {SAME_SIGNAL:?}: the same one"));
            }
            _ => {
                self.log_event(Level::Warn, format!("{signal} again: ending at once"));
                self.kill_all();
            }
        }
    }

    /// Ends all workers without asking. The exit status says whether that cuts
    /// any client, as far as can be told; a server that gave up says so.
    pub(super) fn kill_all(&mut self) {
        let cut = self.children.is_any_busy() || self.has_waiting();
        let exit = match &self.stage {
            Stage::Ending(exit) => *exit,
            Stage::Draining(Drain { exit: Exit::Success, .. }) | Stage::Running if cut => Exit::Forced,
            Stage::Draining(Drain { exit, .. }) => *exit,
            Stage::Running => Exit::Success,
        };
        self.children.remove_all_slots();
        self.listener = None;
        self.stage = Stage::Ending(exit);
        self.children.pids().for_each(|pid| self.send(pid, Signal::SIGKILL));
    }

    /// Does a connection wait in the accept queue? Where our copy of the socket is closed
    /// and the drainer has its own, the kernel's list tells (Linux).
    fn has_waiting(&self) -> bool {
        match &self.listener {
            Some(listener) => listener.has_waiting(),
            None => accept_queue(self.pid.as_raw(), self.header.inode).is_some_and(|queue| queue > 0),
        }
    }

    /// A connection was cut, or may have been.
    fn mark_cut(&mut self) {
        if let Stage::Draining(drain) = &mut self.stage
            && drain.exit == Exit::Success
        {
            drain.exit = Exit::Forced;
        }
    }

    /// Takes note of a child's death during the shutdown. `was_busy`: it had a client.
    pub(super) fn died_while_draining(&mut self, pid: Pid, exit_kind: ExitKind, was_busy: bool) {
        let Stage::Draining(drain) = &mut self.stage else { return };
        let was_drainer = drain.drainer.take_if(|drainer| *drainer == pid).is_some();
        if was_drainer {
            // The next one, should it be needed, only drains: it may not live long, either.
            drain.overflow = None;
        }
        // What others kill is not our shutdown's doing, but that nothing drains the queue
        // is: the drainer may have had the last copy of the listening socket.
        let cut = if was_drainer { was_busy || self.listener.is_none() } else { was_busy };
        if cut && (exit_kind == ExitKind::Crashed || (was_drainer && exit_kind == ExitKind::Killed)) {
            self.mark_cut();
        }
    }

    /// Does a connection that comes now want a drainer?
    pub(super) fn wants_drainer(&self) -> bool {
        matches!(&self.stage, Stage::Draining(drain) if drain.drainer.is_none())
            && self.fork_again_at.is_none_or(|again| again <= Instant::now())
    }

    /// Does what is due of the shutdown. Some: it is over, and this is how.
    pub(super) fn step_shutdown(&mut self) -> Option<Exit> {
        let (now, workers) = (Instant::now(), self.children.pids().len());
        match &mut self.stage {
            Stage::Draining(drain) if drain.deadline <= now && (workers > 0 || self.listener.is_some()) => {
                let workers = count(workers as u64, "worker");
                let grace = humantime::format_duration(self.options.grace);
                self.log_event(
                    Level::Warn,
                    format!("{grace} are over: killing {workers}; give clients longer with --grace"),
                );
                self.kill_all();
            }
            Stage::Draining(drain) => {
                if drain.resend_at <= now {
                    drain.resend_at = now + RESEND_AFTER;
                    // The drainer of an overflow is told when that is over.
                    let drainer = drain.overflow.as_ref().and(drain.drainer);
                    let others = self.children.pids().filter(|pid| Some(*pid) != drainer);
                    others.for_each(|pid| self.terminate(pid));
                }
                self.drain_queue();
            }
            _ => {}
        }
        match self.stage {
            Stage::Ending(exit) if self.children.pids().len() == 0 => Some(exit),
            _ => None,
        }
    }

    /// Forks the drainer if there is something to drain; tells it when an overflow is
    /// over; ends when all is done.
    fn drain_queue(&mut self) {
        let Stage::Draining(drain) = &mut self.stage else { return };
        // Another process may have shut it down: then nothing waits there any more.
        self.listener.take_if(|listener| !listener.is_listening());
        let (workers, came) =
            (self.children.pids().len(), self.scoreboard.served().connections != drain.connections_before);
        let has_waiting = self.listener.as_ref().is_some_and(|listener| listener.has_waiting());
        match (drain.drainer, &mut drain.overflow) {
            (Some(drainer), Some(overflow)) if overflow.until <= Instant::now() => {
                let before = mem::take(&mut overflow.half_open);
                drain.overflow = None;
                self.end_overflow(drainer, &before);
            }
            (Some(_), _) => {}
            (None, overflow) if self.listener.is_some() => {
                let had_overflowed = overflow.is_some();
                // If clients have come during the shutdown, more may be about to.
                let may_come = workers == 0 && came && self.fork_again_at.is_none();
                if had_overflowed || has_waiting || may_come {
                    self.fork_drainer(had_overflowed);
                } else if workers == 0 {
                    self.listener = None;
                    self.stage = Stage::Ending(drain.exit);
                }
            }
            (None, _) if workers == 0 => self.stage = Stage::Ending(drain.exit),
            (None, _) => {}
        }
    }

    /// The drainer must be the last to close the listening socket, at an instant at which
    /// its queue is empty. So our own copy is closed before.
    fn end_overflow(&mut self, drainer: Pid, before: &HashSet<String>) {
        // One that the kernel has repeated since then had room, and was not answered.
        let cut = before.intersection(&half_open(self.header.address)).count();
        if cut > 0 {
            let clients = count(cut as u64, "client");
            self.log_event(Level::Warn, format!("{clients} whose handshake was never completed may be cut"));
            self.mark_cut();
        }
        self.listener = None;
        self.terminate(drainer);
    }

    fn fork_drainer(&mut self, overflowed: bool) {
        let role = if overflowed { WorkerRole::DrainOverflow } else { WorkerRole::FinalDrain };
        let Some(pid) = self.fork_worker(0, role) else { return };
        if !overflowed {
            self.listener = None; // As in end_overflow.
        }
        if let Stage::Draining(drain) = &mut self.stage {
            drain.drainer = Some(pid);
        }
        self.log_event(Level::Info, format!("worker 0 (pid {pid}) forked to drain the accept queue"));
    }
}
