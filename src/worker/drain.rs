//! How a worker leaves: it finishes its connections. When the whole server shuts down, one
//! more worker, forked for it, drains the accept queue.
//!
//! The connections in that queue are established already, and closing the listening
//! socket would reset them. So the final drain accepts all of them before it closes
//! the socket. It serves them after that, not before: a client that is served may
//! connect again at once, and the connection accepted last would be cut.
//!
//! A full accept queue drops the end of handshakes. Such clients believe that they are
//! connected, and their connections appear in the queue when their TCP sends again,
//! 0.2, 0.6, 1.4 s after their first bytes, or when the kernel repeats its half of the
//! handshake, after 1 s. After an overflow connections are accepted and served first,
//! until the parent says that all of them had the time.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::accept::AcceptAction;
use super::connection_set::ConnectionSet;
use super::linger::LingerTimeouts;
use super::{ListenerState, Worker, wakeup};
use crate::echo::WorkerHooks;
use crate::log::narrate::worker as narrate;
use crate::scoreboard::{Phase, State};

/// The longest time for accepting without serving, each time, and never more than an eighth
/// of the grace: it must end although new connections may never cease.
const ACCEPTING: Duration = Duration::from_secs(1);

impl Worker {
    /// Finishes connections, and closes the listening socket before that: its queue must
    /// not stay open when no process accepts from it. When the whole server shuts down, the
    /// connections in it are accepted first, unless another server accepts them: the parent may
    /// be unable to fork the worker that drains the rest.
    pub(super) fn finish(&mut self, mut set: ConnectionSet, buffer: &mut [u8]) {
        self.look_for_overflow();
        if self.scoreboard.phase() == Phase::Draining && !self.scoreboard.queue_passes_on() {
            self.accept_pending(&mut set, Duration::ZERO);
        }
        self.close_listener();
        self.report_retiring(set.len());
        self.finish_connections(set, buffer);
    }

    /// This process alone holds the listening socket. Accepts all connections, closes the
    /// socket when none has come for a while, and serves all after that, also those of the
    /// set.
    pub(super) fn final_drain(&mut self, mut set: ConnectionSet, buffer: &mut [u8]) {
        self.open_poller(&mut set);
        self.finish_all(&mut set);
        while self.accept_pending(&mut set, self.linger_timeouts().quiet) == Pending::NoDescriptors {
            // A connection that is closed gives back its own.
            let open = set.len();
            while open > 0 && set.len() == open {
                self.serve_once(&mut set, false, buffer);
            }
        }
        if let ListenerState::Open(listener) = &self.listener_state {
            self.has_cut = listener.has_waiting();
        }
        self.close_listener();
        self.finish_connections(set, buffer);
    }

    /// The accept queue has overflowed: accepts and serves connections until the parent
    /// asks this worker to stop. Returns those that are still open.
    pub(super) fn serve_overflow(&mut self, buffer: &mut [u8]) -> ConnectionSet {
        self.look_for_overflow();
        let mut set = ConnectionSet::default();
        self.open_poller(&mut set);
        self.finish_all(&mut set);
        let mut accepting = true;
        while !self.is_stopping() && matches!(self.listener_state, ListenerState::Open(_)) {
            if accepting {
                self.accept_pending(&mut set, Duration::ZERO);
            }
            self.row.set_state(if set.is_empty() { State::Idle } else { State::Draining });
            accepting = self.serve_once(&mut set, true, buffer);
        }
        set
    }

    /// Serves the connections until each has ended, or has been quiet for a while.
    fn finish_connections(&mut self, mut set: ConnectionSet, buffer: &mut [u8]) {
        if set.is_empty() {
            return;
        }
        self.finish_all(&mut set);
        narrate::finishes(set.len(), self.linger_timeouts().quiet);
        self.row.set_state(State::Draining);
        while !set.is_empty() {
            self.serve_once(&mut set, false, buffer);
        }
    }

    /// Closes this process's listening socket. That of the others stays open.
    pub(super) fn close_listener(&mut self) {
        if matches!(self.listener_state, ListenerState::Open(_)) {
            self.listener_state = ListenerState::Closed;
        }
    }

    /// Has the accept queue overflowed? When the whole server shuts down, the parent has said so. A
    /// worker that leaves alone takes each drop for an overflow: the socket tells no more, and only
    /// for as long as it is open.
    fn look_for_overflow(&mut self) {
        if self.scoreboard.phase() == Phase::Draining {
            self.has_overflowed = self.scoreboard.queue_has_overflowed();
        } else if let ListenerState::Open(listener) = &self.listener_state {
            self.has_overflowed = listener.has_dropped();
        }
    }

    /// How long to wait for a silent peer. When the whole server shuts down, its grace is
    /// the limit; when one worker leaves, there is none.
    pub(super) fn linger_timeouts(&self) -> LingerTimeouts {
        let grace = (self.scoreboard.phase() == Phase::Draining).then_some(self.grace);
        LingerTimeouts::within(grace, self.has_overflowed)
    }

    /// Accepts connections until none has come for as long as `quiet`; no longer
    /// than [`ACCEPTING`] says.
    fn accept_pending(&mut self, set: &mut ConnectionSet, quiet: Duration) -> Pending {
        let end = Instant::now() + ACCEPTING.min(self.grace / 8);
        let mut quiet_at = Instant::now() + quiet;
        while Instant::now() < end {
            // While connections come without a pause, no call is ever interrupted.
            self.check_signals();
            let ListenerState::Open(listener) = &self.listener_state else { break };
            let left = quiet_at.saturating_duration_since(Instant::now());
            match listener.has_waiting_within(left) {
                Ok(true) => {
                    // Another worker may accept the connection first, or the peer vanish:
                    // then the wakeup timer ends accept, and EINTR disarms it again.
                    wakeup::arm();
                    match self.accept() {
                        Ok(connection) => self.add(set, connection, &[]),
                        Err(AcceptAction::Interrupted | AcceptAction::Retry) => {}
                        Err(AcceptAction::Pause) => {
                            self.pause(); // The armed timer has ended the pause in accept early.
                            return Pending::NoDescriptors;
                        }
                        Err(AcceptAction::Leave) => break,
                    }
                    self.row.set_state(State::Draining);
                    quiet_at = Instant::now() + quiet;
                }
                Err(Errno::EINTR) => self.handle_interrupt(),
                Ok(false) => {
                    narrate::queue_is_empty(listener.fd());
                    break;
                }
                Err(_) => break,
            }
        }
        Pending::Accepted
    }
}

/// What became of the connections in the accept queue.
#[derive(PartialEq)]
enum Pending {
    /// All were accepted, as far as the time was enough.
    Accepted,
    /// More wait, and cannot be accepted now.
    NoDescriptors,
}
