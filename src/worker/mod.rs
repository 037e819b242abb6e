//! The worker: the child process that accepts connections and serves them.
//!
//! It runs from the fork to `_exit`. It may block anywhere: the wakeup timer ends each
//! blocking call when a signal comes. When it is asked to stop it closes the listening
//! socket and finishes its connections; when the parent has died, it has 0.7 s for that. The
//! files in the order of events:
//!
//! - `context`: what the parent hands over
//! - `init`: descriptors, user, signal handlers, sandbox
//! - [`syscalls`]: the system calls that the sandbox allows
//! - [`wakeup`]: signals, and the timer that ends a blocking call
//! - `blocking`: the plain loop of accept, recv, send, close (`--model process`)
//! - `accept`: accept(2), its errors sorted, and close(2)
//! - `threads`: the same loop in several threads (`--model thread`)
//! - `multiplex`: many connections in one thread (`--model multiplex`); `connection_set`: all
//!   of them; `nonblocking`: one of them
//! - `hooks`: what the service calls; `clients`: which clients there are; `report`: what the
//!   parent is told
//! - `drain`: how connections and the accept queue are finished, in all models
//! - `linger`: how long that waits, so that no byte is lost

mod accept;
mod blocking;
mod clients;
mod connection_set;
mod context;
mod drain;
mod hooks;
mod init;
mod linger;
mod multiplex;
mod nonblocking;
mod report;
pub mod syscalls;
mod threads;
pub mod wakeup;

use std::io::{PipeWriter, Write};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::thread::Thread;
use std::time::Duration;

use log::{debug, error, info, warn};
use nix::unistd::{Pid, Uid, geteuid, getpid};

use self::clients::ClientList;
use self::connection_set::ConnectionSet;
pub use self::context::{WorkerContext, WorkerRole};
pub use self::report::Report;
use crate::config::Model;
use crate::echo::WorkerHooks;
use crate::error::strerror;
use crate::listener::Listener;
use crate::log::narrate::worker as narrate;
use crate::log::{ProcessLabel, set_label};
use crate::private_counter;
use crate::scoreboard::{RowWriter, Scoreboard, State};
use crate::sys::descriptors::descriptors_left;
use crate::sys::process;
use crate::sys::sandbox::Sandbox;
use crate::text::count;

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
    worker.row.set_places(worker.clients_at_once);
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
        worker.serve(role, buffer);
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
    /// A pipe for bulk has descriptors below this number: the others are for connections.
    pipes_below: RawFd,
    /// The most connections that it accepts in its life.
    limit: u64,
    /// Whether there are more workers to come when no worker has room.
    pool_may_grow: bool,
    /// Whether each connection begins with a PROXY header.
    proxy_protocol: bool,
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
        let descriptors = descriptors_left();
        let clients_at_once = options.clients_at_once().min(descriptors);
        Worker {
            row: context.row,
            scoreboard: context.scoreboard,
            parent: context.parent,
            user: geteuid(),
            model: options.model,
            clients_at_once,
            pipes_below: (descriptors - clients_at_once).try_into().unwrap_or(RawFd::MAX),
            limit: limit_with_jitter(options.max_connections, getpid()),
            pool_may_grow: options.pool_may_grow(),
            proxy_protocol: options.proxy_protocol,
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
        if self.model == Model::Process && !self.pool_may_grow {
            self.reports = None;
        }
        // The kernel signals the parent's death since `init`. A parent that died before that is
        // found only here.
        self.handle_interrupt();
        debug!("ready");
    }

    fn serve(&mut self, role: WorkerRole, buffer: &mut [u8]) {
        match (role, self.model) {
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
        !self.is_stopping() && private_counter::value() < self.limit && !self.row.is_retired()
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
