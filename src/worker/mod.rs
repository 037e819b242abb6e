//! The worker: the child process that accepts connections and serves them.
//!
//! It runs from the fork to `_exit`. It may block anywhere: the wakeup timer ends each
//! blocking call when a signal comes. When it is asked to stop it closes the listening
//! socket and finishes its connections; when the parent has died, it has 0.7 s for that. The
//! files in the order of events:
//!
//! - `init`: descriptors, user, signal handlers, sandbox
//! - [`syscalls`]: the system calls that the sandbox allows
//! - [`wakeup`]: signals, and the timer that ends a blocking call
//! - `blocking`: the plain loop of accept, recv, send, close (`--model process`)
//! - `accept`: accept(2), and its errors sorted
//! - `threads`: the same loop in several threads (`--model thread`)
//! - `multiplex`: many connections in one thread (`--model multiplex`); `nonblocking`: one
//!   of them
//! - `clients`: which clients there are, for the scoreboard
//! - `drain`: how connections and the accept queue are finished, in all models
//! - `linger`: how long that waits, so that no byte is lost

mod accept;
mod blocking;
mod clients;
mod drain;
mod init;
mod linger;
mod multiplex;
mod nonblocking;
pub mod syscalls;
mod threads;
pub mod wakeup;

use std::fs::File;
use std::io::{PipeWriter, Write};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::Thread;
use std::time::{Duration, Instant};

use log::{debug, error, info, warn};
use nix::errno::Errno;
use nix::unistd::{Pid, Uid, geteuid, getpid};

use self::clients::ClientList;
use self::multiplex::ConnectionSet;
use crate::config::{Config, Model};
use crate::echo::{CloseReason, Connection, WorkerHooks};
use crate::error::strerror;
use crate::listener::Listener;
use crate::log::narrate::worker as narrate;
use crate::log::{ProcessLabel, set_label};
use crate::private_counter::{self, careless};
use crate::scoreboard::{RowWriter, Scoreboard, State};
use crate::sys::credentials::Credentials;
use crate::sys::sandbox::Sandbox;
use crate::sys::{process, readiness};
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
    /// until it is asked to stop. Then it does what [`WorkerRole::FinalDrain`] does.
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
    pub credentials: Option<&'a Credentials>,
    /// The pid of the parent.
    pub parent: Pid,
    /// An open /dev/null, which takes the place of stdin and stdout.
    pub null: &'a File,
    /// The pipe in which the worker reports to the parent.
    pub reports: PipeWriter,
}

/// What a worker reports to its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Report {
    /// It is about to accept.
    Ready,
    /// It accepts no more connections, and finishes those that it has.
    Retiring,
}

impl Report {
    /// The size in bytes of a report in the pipe.
    pub const SIZE: usize = 8;

    /// The report as it is written into the pipe: the worker's pid, then what it reports.
    pub fn encode(self, pid: Pid) -> [u8; Report::SIZE] {
        let number = (pid.as_raw() as u64) << 1 | u64::from(self == Report::Retiring);
        number.to_ne_bytes()
    }

    /// The pid, which is not checked, and what the worker reports.
    pub fn decode(bytes: [u8; Report::SIZE]) -> (Pid, Report) {
        let number = u64::from_ne_bytes(bytes);
        let report = if number & 1 == 0 { Report::Ready } else { Report::Retiring };
        (Pid::from_raw((number >> 1) as i32), report)
    }
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
    let (role, model) = (context.role, context.options.model);
    let sandboxing = init::Sandboxing::new(&context);
    let mut worker = Worker::new(context);
    if role == WorkerRole::Serve && model == Model::Thread {
        if let Err(error) = worker.serve_threads(&sandboxing, buffer) {
            error!(
                "cannot start all threads: {}; raise the limit on processes (ulimit -u), or lower --clients",
                strerror(&error)
            );
            return 1;
        }
    } else {
        worker.begin(sandboxing.enter());
        worker.serve(role, model, buffer);
    }
    worker.exit_code()
}

/// How many connections a worker serves: up to 10 % more than asked, by its pid, so that
/// workers forked together hardly leave together.
fn limit_with_jitter(asked: u64, pid: Pid) -> u64 {
    match asked {
        0 => u64::MAX,
        _ => asked.saturating_add(pid.as_raw() as u64 % (asked / 10 + 1)),
    }
}

/// A worker. Each of its threads has a copy.
#[derive(Debug, Clone)]
struct Worker {
    row: RowWriter,
    scoreboard: Scoreboard,
    parent: Pid,
    user: Uid,
    model: Model,
    /// The most connections that it serves at once.
    clients_at_once: usize,
    /// The most connections that it accepts in its life.
    limit: u64,
    /// How long each answer takes.
    work: Duration,
    grace: Duration,
    listener_state: ListenerState,
    clients: Arc<ClientList>,
    /// Failures of accept in a row.
    failures: Arc<AtomicU32>,
    /// Where it reports to the parent; None: it has no more to report.
    reports: Option<Arc<PipeWriter>>,
    /// Whether this is the copy of the first thread, which answers the signals.
    is_first_thread: bool,
    /// A thread that begins to accept when this one has accepted its first connection.
    next_thread: Option<Thread>,
    /// The accept queue has overflowed: handshakes were delayed.
    has_overflowed: bool,
    /// Connections waited in the accept queue when the listening socket was closed.
    has_cut: bool,
}

/// The listening socket, or why this worker has it no more.
#[derive(Debug, Clone)]
enum ListenerState {
    Open(Arc<Listener>),
    /// This worker accepts no more, and finishes its connections.
    Closed,
    /// The parent has died.
    Orphaned,
    /// Accept has failed for good.
    Broken,
}

impl Worker {
    fn new(context: WorkerContext<'_>) -> Worker {
        let options = context.options;
        Worker {
            row: context.row,
            scoreboard: context.scoreboard,
            parent: context.parent,
            user: geteuid(),
            model: options.model,
            clients_at_once: options.clients_at_once(),
            limit: limit_with_jitter(options.max_connections, getpid()),
            work: options.work,
            grace: options.grace,
            listener_state: ListenerState::Open(Arc::new(context.listener)),
            clients: Arc::new(ClientList::new(context.row, options.model)),
            failures: Arc::default(),
            reports: Some(Arc::new(context.reports)),
            is_first_thread: true,
            next_thread: None,
            has_overflowed: false,
            has_cut: false,
        }
    }

    /// The worker is in its sandbox, and begins to serve.
    fn begin(&mut self, sandbox: Sandbox) {
        self.row.set_credentials(self.user, sandbox);
        self.report(Report::Ready);
        if self.model == Model::Process {
            self.reports = None;
        }
        // The kernel signals the parent's death since `init`. A parent that died before that is
        // found only here.
        self.handle_interrupt();
        debug!("ready");
    }

    fn serve(&mut self, role: WorkerRole, model: Model, buffer: &mut [u8]) {
        match (role, model) {
            (WorkerRole::Serve, Model::Multiplex) => {
                let connections = self.serve_multiplexed(buffer);
                self.finish(connections, buffer);
            }
            (WorkerRole::Serve, _) => {
                let unfinished = self.serve_blocking(buffer);
                let mut connections = ConnectionSet::default();
                if let Some((connection, unsent)) = unfinished {
                    self.add(&mut connections, connection, &unsent);
                }
                self.finish(connections, buffer);
            }
            (WorkerRole::FinalDrain, _) => {
                wakeup::request_stop();
                self.final_drain(ConnectionSet::default(), buffer);
            }
            (WorkerRole::DrainOverflow, _) => {
                let connections = self.serve_overflow(buffer);
                self.final_drain(connections, buffer);
            }
        }
    }

    /// May this worker accept one more connection?
    fn may_accept(&self) -> bool {
        !self.is_stopping() && private_counter::value() < self.limit
    }

    /// Interrupts the first thread's wait: this thread ends, or has accepted the last
    /// connection that the worker may accept. When the worker is stopping the first thread
    /// looks by itself, and the timer may be the one that ends an orphan.
    fn wake_first_thread(&self) {
        if !self.is_first_thread && !self.is_stopping() {
            wakeup::arm();
        }
    }

    /// If clients may stay for long, the parent need not wait for the end of this worker until
    /// it forks the next one. It is reported once.
    fn report_retiring(&mut self, connections: usize) {
        if connections > 0 {
            self.report(Report::Retiring);
            self.reports = None;
        }
    }

    fn report(&self, report: Report) {
        if let Some(pipe) = &self.reports {
            // One write of fewer than PIPE_BUF bytes is whole. It fails if the parent is dead.
            let _ = (&**pipe).write(&report.encode(getpid()));
        }
    }

    /// Shows the call that the loop of the model process is in.
    fn show(&self, state: State) {
        if self.model == Model::Process {
            self.row.set_state(if self.is_stopping() { State::Draining } else { state });
        }
    }

    /// Closes the connection, and logs how it has ended.
    fn close(&self, connection: Connection, reason: &CloseReason) {
        let (fd, peer, echoed) = (connection.fd(), connection.peer, connection.echoed);
        self.clients.remove(&connection);
        drop(connection);
        narrate::closed(fd);
        info!("closed {peer}: {reason}, {} echoed", count(echoed, "byte"));
    }

    /// The exit code. Logs why the worker leaves.
    fn exit_code(&self) -> u8 {
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
        // The first thread alone answers. The timer that ends an orphan must not be disarmed.
        if !self.is_first_thread || matches!(self.listener_state, ListenerState::Orphaned) {
            return;
        }
        wakeup::disarm();
        if process::is_orphan(self.parent) {
            self.listener_state = ListenerState::Orphaned;
            wakeup::request_stop();
            wakeup::exit_within(ORPHAN_LIMIT);
        }
    }

    fn before_recv(&mut self) {
        self.check_signals();
        self.show(State::Reading);
    }

    fn before_answer(&mut self, connection: &Connection) {
        let counts = connection.echoed == 0;
        let before = careless::read();
        let end = (!self.work.is_zero()).then(|| Instant::now() + self.work);
        while end.is_some_and(|end| Instant::now() < end) && !self.is_stopping() {
            if readiness::wait(&mut [], end) == Err(Errno::EINTR) {
                self.handle_interrupt();
            }
        }
        if counts {
            careless::write(before + 1);
            self.clients.show_careless_counter();
        }
    }

    fn before_send(&self, bytes: usize) {
        if self.model == Model::Process && !self.is_stopping() {
            self.row.set_writing();
        }
        self.row.before_send(bytes);
    }

    fn after_send(&self, unsent: usize) {
        self.row.after_send(unsent);
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
