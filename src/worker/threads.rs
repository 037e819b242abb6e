//! The plain loop of `blocking` in several threads: pre-threading is pre-forking once more,
//! inside one address space.
//!
//! The threads are started before any of them serves. Each blocks in accept on the listening
//! socket, which it shares with the threads of all workers, and serves one connection at a
//! time. A few begin at once, and each of them has another one begin when it has accepted its
//! first connection: otherwise all threads of one worker would stand one after the other in the
//! kernel's queue, and that worker would get all of the first clients.
//!
//! The first thread of the process serves none: it waits for signals, because a signal that is
//! sent to a process interrupts one of its threads only. When the worker leaves, the first
//! thread wakes the others, gets their connections, and finishes all of them.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Barrier, Mutex, OnceLock, PoisonError};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::connection_set::ConnectionSet;
use super::init::Sandboxing;
use super::{ListenerState, Worker, wakeup};
use crate::echo::{BUFFER_SIZE, Connection, WorkerHooks};
use crate::log::narrate::worker as narrate;
use crate::sys::descriptors::{OF_A_START, descriptors_left, reserve_descriptors};
use crate::sys::sandbox::Sandbox;
use crate::sys::signal::ThreadId;
use crate::sys::{memory, process, readiness};

/// From one signal to a thread that must leave its call to the next: a signal that comes just
/// before the call does not interrupt it.
const WAKE_AGAIN: Duration = Duration::from_millis(10);

/// How many threads of a worker begin to accept at once.
const AT_ONCE: usize = 16;

/// What a thread leaves to the first one.
struct Left {
    /// Why it accepts no more.
    listener_state: ListenerState,
    /// The connection that it has not finished, with the bytes that were received and not yet
    /// sent back.
    unfinished: Option<(Connection, Vec<u8>)>,
}

/// A thread that serves: the handle to join it, and the number to interrupt its call.
struct ServingThread {
    handle: JoinHandle<Left>,
    /// It is set before all threads have started.
    id: Arc<OnceLock<ThreadId>>,
}

/// No thread serves before all of them are in the sandbox.
struct Start {
    all: Barrier,
    sandboxes: Mutex<Vec<Sandbox>>,
}

impl Start {
    fn enter(&self, sandboxing: &Sandboxing) {
        let sandbox = sandboxing.enter();
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner).push(sandbox);
        self.all.wait();
    }

    /// The layers in which all threads are.
    fn sandbox(&self) -> Sandbox {
        let sandboxes = self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner);
        sandboxes.iter().copied().reduce(Sandbox::common).unwrap_or_default()
    }
}

impl Worker {
    /// Serves with `--clients` threads until this worker leaves, and finishes the connections
    /// that they have then.
    ///
    /// # Errors
    /// The threads cannot be started. Some of them may wait, and none serves.
    pub(super) fn serve_threads(&mut self, sandboxing: &Sandboxing, buffer: &mut [u8]) -> io::Result<()> {
        let start =
            Arc::new(Start { all: Barrier::new(self.clients_at_once + 1), sandboxes: Mutex::default() });
        // A socket and, in bulk, a pipe for each, as far as there are so many.
        let wanted = (3 * self.clients_at_once).min(descriptors_left() - 1);
        reserve_descriptors(wanted + OF_A_START);
        let mut threads: Vec<ServingThread> = Vec::new();
        for number in (1..=self.clients_at_once).rev() {
            let next_thread = threads.iter().rev().nth(AT_ONCE - 1).map(|next| next.handle.thread().clone());
            let thread = Worker { is_first_thread: false, next_thread, ..self.clone() };
            threads.push(thread.start_thread(number, sandboxing, &start)?);
        }
        start.enter(sandboxing);
        // Not before they are about to accept, and some may have clients by now.
        self.clients.show_now();
        narrate::threads_started(threads.len());
        self.begin(start.sandbox());
        self.wait_for_threads(&threads);

        let mut set = ConnectionSet::default();
        // A thread that has panicked has ended the process.
        for left in threads.into_iter().filter_map(|thread| thread.handle.join().ok()) {
            if let ListenerState::Broken = left.listener_state {
                self.listener_state = ListenerState::Broken;
            }
            if let Some((connection, unsent)) = left.unfinished {
                self.add(&mut set, connection, &unsent);
            }
        }
        self.finish(set, buffer);
        Ok(())
    }

    /// Starts a thread, which serves when all others have started, too.
    fn start_thread(
        mut self,
        number: usize,
        sandboxing: &Sandboxing,
        start: &Arc<Start>,
    ) -> io::Result<ServingThread> {
        let start = Arc::clone(start);
        let id = Arc::new(OnceLock::new());
        let own_id = Arc::clone(&id);
        let sandboxing = sandboxing.of_another_thread();
        let buffer = memory::map_private(BUFFER_SIZE)?;
        // The system shows the name in its list of threads (ps -L, top -H).
        let handle = Builder::new().name(format!("prefork-echo/t{number}")).spawn(move || {
            own_id.get_or_init(ThreadId::current);
            let serve = AssertUnwindSafe(|| {
                wakeup::leave_signals_to_first_thread();
                start.enter(&sandboxing);
                if number > AT_ONCE {
                    thread::park(); // Until an earlier thread has accepted.
                }
                self.serve_blocking(buffer)
            });
            // Threads share their memory. After a panic it may be spoilt for all of them.
            let unfinished = catch_unwind(serve).unwrap_or_else(|_| process::exit(process::PANICKED));
            self.wake_first_thread();
            Left { listener_state: self.listener_state, unfinished }
        })?;
        Ok(ServingThread { handle, id })
    }

    /// Waits until all threads have ended, because this worker leaves. Wakes those that block
    /// in a call then.
    fn wait_for_threads(&mut self, threads: &[ServingThread]) {
        loop {
            self.check_signals();
            let serving: Vec<_> = threads.iter().filter(|thread| !thread.handle.is_finished()).collect();
            if serving.is_empty() {
                break;
            }
            let clients = self.clients.len();
            if !self.may_accept() {
                self.report_retiring(clients);
            }
            // With its connections all accepted, a worker waits for as long as its clients stay.
            let in_accept = serving.len().saturating_sub(clients);
            let must_wake = self.is_stopping() || (!self.may_accept() && in_accept > 0);
            if must_wake {
                for thread in &serving {
                    thread.handle.thread().unpark();
                    if let Some(id) = thread.id.get() {
                        wakeup::wake_thread(*id);
                    }
                }
            }
            let deadline = must_wake.then(|| Instant::now() + WAKE_AGAIN);
            if readiness::wait(&mut [], deadline) == Err(Errno::EINTR) {
                self.handle_interrupt();
            }
        }
    }
}
