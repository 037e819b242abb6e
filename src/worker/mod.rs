//! The worker: the child process that accepts connections and serves them.
//!
//! It runs from the fork to `_exit`. It may block anywhere: the wakeup timer ends each
//! blocking call when a signal comes. When it is asked to stop it closes the listening
//! socket and finishes its connections; when the parent has died, it does so at once. The
//! files in the order of events:
//!
//! - `init`: descriptors, user, signal handlers, sandbox
//! - [`syscalls`]: the system calls that the sandbox allows
//! - [`wakeup`]: signals, and the timer that ends a blocking call
//! - `blocking`: the plain loop of accept, recv, send, close
//! - `accept`: accept(2), and its errors sorted
//! - `drain`: how connections and the accept queue are finished
//! - `linger`: how one connection is closed without losing bytes

mod accept;
mod blocking;
mod drain;
mod init;
mod linger;
pub mod syscalls;
pub mod wakeup;

use std::fs::File;
use std::io::PipeWriter;
use std::time::Duration;

use log::{debug, error, info, warn};
use nix::unistd::{Pid, getpid};

use crate::config::Config;
use crate::echo::{CloseReason, Connection, WorkerHooks};
use crate::error::strerror;
use crate::listener::Listener;
use crate::log::narrate::worker as narrate;
use crate::log::{ProcessLabel, set_label};
use crate::private_counter;
use crate::scoreboard::{RowWriter, Scoreboard, State};
use crate::sys::credentials::Credentials;
use crate::sys::process;
use crate::text::count;

/// The time that an orphan has to finish its connection: no worker outlives the parent by
/// a second.
const ORPHAN_LIMIT: Duration = Duration::from_millis(700);

/// What a worker is forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// It serves until it is asked to stop.
    Serve,
    /// It drains the accept queue when the whole server shuts down, and closes it.
    FinalDrain,
    /// It first serves connections that an accept queue that has overflowed still brings,
    /// until it is asked to stop. Then it does the same.
    DrainOverflow,
}

/// What a worker gets from its parent.
#[derive(Debug)]
pub struct WorkerContext<'a> {
    /// The slot that the worker fills, from 0.
    pub slot: usize,
    /// What the worker is forked for.
    pub role: WorkerRole,
    /// The row of the scoreboard in which the worker counts.
    pub row: RowWriter,
    /// The scoreboard of all processes.
    pub scoreboard: Scoreboard,
    /// The listening socket, shared with all workers.
    pub listener: Listener,
    /// The options that the server was started with.
    pub options: &'a Config,
    /// The user and groups that the worker changes to, if any.
    pub rights: Option<&'a Credentials>,
    /// The pid of the parent.
    pub parent: Pid,
    /// An open /dev/null, which takes the place of stdin and stdout.
    pub null: &'a File,
    /// The pipe in which the worker says that it is ready, by its pid (four bytes).
    pub ready: PipeWriter,
}

/// What the child does between fork and `_exit`. Returns the exit code: 0 after the worker
/// was asked to stop or had served its number of connections.
pub fn run(context: WorkerContext<'_>) -> u8 {
    set_label(ProcessLabel::Worker(context.slot));
    narrate::forked();
    process::set_name(&format!("prefork-echo/{}", context.slot));
    let buffer = match init::init(&context) {
        Ok(buffer) => buffer,
        Err(error) => {
            error!("cannot start: {}", strerror(&error));
            return 1;
        }
    };
    let (role, limit) = (context.role, limit_with_jitter(context.options.max_connections, getpid()));
    let mut worker = Worker::new(context);
    // The kernel signals the parent's death from now on. A parent that died before that is
    // found only here.
    worker.handle_interrupt();
    debug!("ready");
    worker.serve(role, limit, buffer);
    worker.log_end()
}

/// How many connections a worker serves: up to 10 % more than asked, by its pid, so that
/// workers forked together hardly leave together.
fn limit_with_jitter(asked: u64, pid: Pid) -> u64 {
    match asked {
        0 => u64::MAX,
        _ => asked.saturating_add(pid.as_raw() as u64 % (asked / 10 + 1)),
    }
}

struct Worker {
    row: RowWriter,
    scoreboard: Scoreboard,
    parent: Pid,
    listener_state: ListenerState,
    grace: Duration,
    /// The accept queue has overflowed: handshakes were delayed.
    has_overflowed: bool,
    /// Connections waited in the accept queue when the listening socket was closed.
    has_cut: bool,
    /// Failures of accept in a row.
    failures: u32,
}

/// The listening socket, or why this worker has it no more.
enum ListenerState {
    Open(Listener),
    /// This worker accepts no more, and finishes its connections.
    Closed,
    /// The parent has died.
    Orphaned,
    /// Accept has failed for good.
    Broken,
}

impl Worker {
    fn new(context: WorkerContext<'_>) -> Worker {
        Worker {
            row: context.row,
            scoreboard: context.scoreboard,
            parent: context.parent,
            listener_state: ListenerState::Open(context.listener),
            grace: context.options.grace,
            has_overflowed: false,
            has_cut: false,
            failures: 0,
        }
    }

    fn serve(&mut self, role: WorkerRole, limit: u64, buffer: &mut [u8]) {
        match role {
            WorkerRole::Serve => self.serve_blocking(limit, buffer),
            WorkerRole::FinalDrain => {
                wakeup::request_stop();
                self.final_drain(Vec::new(), buffer);
            }
            WorkerRole::DrainOverflow => {
                let connections = self.serve_overflow(buffer);
                self.final_drain(connections, buffer);
            }
        }
    }

    /// Logs why the worker leaves. Returns its exit code.
    fn log_end(&self) -> u8 {
        match self.listener_state {
            _ if self.has_cut => {
                error!("leaving: connections came without a pause, and the last of them are cut");
            }
            ListenerState::Open(_) | ListenerState::Closed => {
                info!("leaving after {}", count(private_counter::value(), "connection"));
                return 0;
            }
            ListenerState::Orphaned => warn!("leaving: the parent is gone"),
            ListenerState::Broken => error!("leaving: the listening socket is of no use"),
        }
        1
    }
}

impl WorkerHooks for Worker {
    fn is_stopping(&self) -> bool {
        wakeup::stop_requested()
    }

    fn handle_interrupt(&mut self) {
        if matches!(self.listener_state, ListenerState::Orphaned) {
            return; // The timer that ends this process runs, and must not be disarmed.
        }
        wakeup::disarm();
        if process::is_orphan(self.parent) {
            self.listener_state = ListenerState::Orphaned;
            wakeup::request_stop();
            wakeup::exit_within(ORPHAN_LIMIT);
        }
    }

    fn before_recv(&mut self) {
        if wakeup::is_pending() {
            self.handle_interrupt();
        }
        self.row.set_state(if self.is_stopping() { State::Draining } else { State::Reading });
    }

    fn before_send(&self, bytes: usize) {
        match self.is_stopping() {
            true => self.row.set_state(State::Draining),
            false => self.row.set_writing(),
        }
        self.row.before_send(bytes);
    }

    fn after_send(&self, bytes: usize) {
        self.row.after_send(bytes);
    }
}

/// Closes the connection, and logs how it has ended.
fn close(connection: Connection, reason: &CloseReason) {
    let (fd, peer, echoed) = (connection.fd(), connection.peer, connection.echoed);
    drop(connection);
    narrate::closed(fd);
    info!("closed {peer}: {reason}, {} echoed", count(echoed, "byte"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workers_limit_is_up_to_a_tenth_more_than_asked() {
        for pid in 1..=1000 {
            let limit = |asked| limit_with_jitter(asked, Pid::from_raw(pid));
            assert!((100..=110).contains(&limit(100)));
            assert_eq!(limit(1), 1);
            assert_eq!(limit(0), u64::MAX);
        }
    }
}
