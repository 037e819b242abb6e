//! The worker process: accept a client, serve it to its end, accept the next.
//!
//! It runs from the fork to `_exit`. It blocks wherever it likes, one client at
//! a time; a signal wakes it from any call by the bell of
//! [`sys::signal`](crate::sys::signal). When it is to leave it closes the listening
//! socket, and finishes its client. When the parent is gone, it does so at once.

mod accept;
mod drain;
mod init;
pub mod linger;

use std::fmt;
use std::fs::File;
use std::io::PipeWriter;
use std::net::SocketAddr;
use std::ops::ControlFlow::{Break, Continue};
use std::os::fd::AsRawFd;
use std::time::Duration;

use log::{debug, error, info, warn};
use nix::unistd::{Pid, getpid};

use crate::cli::Options;
use crate::echo::{self, CloseReason, Connection, WorkerHooks};
use crate::error::strerror;
use crate::explain;
use crate::listener::Listener;
use crate::log::{ProcessLabel, count, set_label};
use crate::private_counter;
use crate::scoreboard::{RowWriter, Scoreboard, State};
use crate::sys::credentials::Credentials;
use crate::sys::{process, signal};
use crate::worker::linger::DrainingConnection;

/// An orphan's client has this long: no process outlives the parent by a second.
const ORPHAN_LIMIT: Duration = Duration::from_millis(700);

/// What a worker is forked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerRole {
    /// To serve until asked to leave.
    Serve,
    /// To drain the accept queue when the whole server leaves, and close it.
    FinalDrain,
    /// The same, but at first to serve what a queue that has overflowed still brings,
    /// until asked to leave.
    DrainOverflow,
}

/// What a worker has from its parent.
#[derive(Debug)]
pub struct WorkerContext<'a> {
    /// The place that it fills; 0 is the first.
    pub slot: usize,
    /// What it is for.
    pub role: WorkerRole,
    /// Where it counts.
    pub row: RowWriter,
    /// What all can see.
    pub scoreboard: Scoreboard,
    /// The socket that it accepts from, with all others.
    pub listener: Listener,
    /// The user's wishes.
    pub options: &'a Options,
    /// The rights that it takes.
    pub rights: Option<&'a Credentials>,
    /// Who forked it.
    pub parent: Pid,
    /// What takes the place of stdin and stdout.
    pub null: &'a File,
    /// Where it says that it is ready, by its pid (four bytes).
    pub ready: PipeWriter,
}

/// A worker's life: what the child does between fork and `_exit`. Returns the
/// exit code: 0 after it was asked to leave or had served its number.
pub fn run(job: WorkerContext<'_>) -> u8 {
    set_label(ProcessLabel::Worker { slot: job.slot, pid: getpid() });
    explain!(
        "fork() = 0: this is the child, with memory of its own from now on and the same listening socket"
    );
    process::set_name(&format!("prefork-echo/{}", job.slot));
    let buffer = match init::init(&job) {
        Ok(buffer) => buffer,
        Err(error) => {
            error!("cannot start: {}", strerror(&error));
            return 1;
        }
    };
    drop(job.ready);
    let limit = limit_with_jitter(job.options.max_connections, getpid());
    let mut worker = Worker {
        row: job.row,
        scoreboard: job.scoreboard,
        parent: job.parent,
        listener_state: ListenerState::Open(job.listener),
        grace: job.options.grace,
        has_cut: false,
        failures: 0,
    };

    // The signal for the parent's death is set by now; if it died before that,
    // only a look can tell.
    worker.handle_interrupt();
    debug!("ready");
    match job.role {
        WorkerRole::Serve => {
            while !worker.is_stopping() && private_counter::value() < limit {
                worker.row.set_state(State::Idle);
                worker.accept_and_serve(buffer);
            }
            worker.finish(Vec::new(), buffer);
        }
        WorkerRole::FinalDrain => {
            signal::request_stop();
            worker.final_drain(Vec::new(), buffer);
        }
        WorkerRole::DrainOverflow => {
            let draining = worker.serve_overflow(buffer);
            worker.final_drain(draining, buffer);
        }
    }
    match worker.listener_state {
        _ if worker.has_cut => {
            error!("leaving: connections came without a pause, and the last of them are cut");
            1
        }
        ListenerState::Open(_) | ListenerState::Closed => {
            info!("leaving after {}", count(private_counter::value(), "connection"));
            0
        }
        ListenerState::Orphaned => {
            warn!("leaving: the parent is gone");
            1
        }
        ListenerState::Broken => {
            error!("leaving: the listening socket is of no use");
            1
        }
    }
}

/// How many clients a worker serves: up to 10 % more than asked, by its pid, so
/// that workers forked together hardly leave together.
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
    /// Did connections wait in the queue when its socket was closed?
    has_cut: bool,
    /// Failures of accept in a row.
    failures: u32,
}

/// The listening socket, or why this process has it no more.
enum ListenerState {
    Open(Listener),
    /// This worker accepts no more, and finishes what it has.
    Closed,
    /// The parent is gone.
    Orphaned,
    /// Accept failed in a way that doesn't mend.
    Broken,
}

impl WorkerHooks for Worker {
    fn is_stopping(&self) -> bool {
        signal::stop_requested()
    }

    fn handle_interrupt(&mut self) {
        if matches!(self.listener_state, ListenerState::Orphaned) {
            return; // The last timer runs, and must go on running.
        }
        signal::disarm();
        if process::is_orphan(self.parent) {
            self.listener_state = ListenerState::Orphaned;
            signal::request_stop();
            signal::leave_within(ORPHAN_LIMIT);
        }
    }

    fn before_recv(&mut self) {
        if signal::is_pending() {
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

impl Worker {
    /// Blocks in accept, and serves the client whom it gets, if it gets one.
    fn accept_and_serve(&mut self, buffer: &mut [u8]) {
        if let Ok(client) = self.accept() {
            self.serve(client, buffer);
        }
    }

    /// Serves one client to its end, or until this worker must leave.
    fn serve(&mut self, mut client: Connection, buffer: &mut [u8]) {
        match echo::echo(&mut client, buffer, self) {
            Break(end) => {
                close(client, &end);
                self.row.clear_peer();
            }
            Continue(pending) => self.finish(vec![DrainingConnection::new(client, pending)], buffer),
        }
    }
}

/// Closes the connection, and says how it has ended.
fn close(client: Connection, end: &CloseReason) {
    let (fd, peer, echoed) = (client.socket.as_raw_fd(), Peer(client.peer), client.echoed);
    drop(client);
    explain!("close({fd}): the connection is closed on our side, too");
    info!("closed {peer}: {end}, {} echoed", count(echoed, "byte"));
}

/// A client's address, as far as it is known.
struct Peer(Option<SocketAddr>);

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => address.fmt(f),
            None => f.write_str("a client that has vanished"),
        }
    }
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
