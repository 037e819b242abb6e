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
use super::linger::{DrainingConnection, LingerTimeouts};
use super::{ListenerState, Worker, close, wakeup};
use crate::echo::WorkerHooks;
use crate::log::narrate::worker as narrate;
use crate::scoreboard::{Phase, State};
use crate::sys::readiness;

/// The longest time for accepting without serving, and never more than an eighth of the
/// grace: it must end although new connections may never cease.
const ACCEPTING: Duration = Duration::from_secs(1);

/// What came out of the accept queue.
struct Accepted {
    connections: Vec<DrainingConnection>,
    /// More connections wait, and cannot be accepted now.
    is_stuck: bool,
}

impl Worker {
    /// Finishes connections, and closes the listening socket before that: its queue must
    /// not stay open when no process accepts from it. When the whole server shuts down, the
    /// connections in it are accepted first: the parent may be unable to fork the worker
    /// that drains the rest.
    pub(super) fn finish(&mut self, mut connections: Vec<DrainingConnection>, buffer: &mut [u8]) {
        self.look_for_overflow();
        if self.scoreboard.phase() == Phase::Draining {
            connections.extend(self.accept_pending(Duration::ZERO).connections);
        }
        if matches!(self.listener_state, ListenerState::Open(_)) {
            self.listener_state = ListenerState::Closed;
        }
        if !connections.is_empty() {
            narrate::finishes(connections.len(), self.linger_timeouts().quiet);
        }
        while !connections.is_empty() {
            self.serve_once(&mut connections, false, buffer);
        }
        self.row.clear_peer();
    }

    /// The accept queue has overflowed: accepts and serves connections until the parent
    /// asks this worker to stop. Returns those that are still open.
    pub(super) fn serve_overflow(&mut self, buffer: &mut [u8]) -> Vec<DrainingConnection> {
        self.look_for_overflow();
        let mut connections = Vec::new();
        while !self.is_stopping() && matches!(self.listener_state, ListenerState::Open(_)) {
            connections.extend(self.accept_pending(Duration::ZERO).connections);
            if connections.is_empty() {
                self.row.clear_peer();
            }
            self.serve_once(&mut connections, true, buffer);
        }
        connections
    }

    /// This process alone holds the listening socket. Accepts all connections, closes the
    /// socket when none has come for a while, and serves all after that, also the given
    /// ones.
    pub(super) fn final_drain(&mut self, mut connections: Vec<DrainingConnection>, buffer: &mut [u8]) {
        loop {
            let accepted = self.accept_pending(self.linger_timeouts().quiet);
            connections.extend(accepted.connections);
            if !accepted.is_stuck {
                break;
            }
            // No descriptors are left: a connection that is closed gives back its own.
            let open = connections.len();
            while open > 0 && connections.len() == open {
                self.serve_once(&mut connections, false, buffer);
            }
        }
        if let ListenerState::Open(listener) = &self.listener_state {
            self.has_cut = listener.has_waiting();
        }
        self.finish(connections, buffer);
    }

    /// Has the accept queue overflowed? The socket tells for as long as it is open.
    fn look_for_overflow(&mut self) {
        if let ListenerState::Open(listener) = &self.listener_state {
            self.has_overflowed = listener.drops().is_some_and(|drops| drops > 0);
        }
    }

    /// Waits until a connection is ready or a check is due, or, if `accepting`, another one
    /// waits in the accept queue. Serves those that are ready, and closes those that ended.
    fn serve_once(&mut self, connections: &mut Vec<DrainingConnection>, accepting: bool, buffer: &mut [u8]) {
        self.before_recv();
        if connections.is_empty() {
            self.row.set_state(State::Idle);
        }
        let timeouts = self.linger_timeouts();
        let ready = self.wait(connections, accepting);
        for (mut connection, is_ready) in std::mem::take(connections).into_iter().zip(ready) {
            match connection.advance(is_ready, timeouts, buffer, self) {
                Ok(()) => connections.push(connection),
                Err(reason) => close(connection.into_connection(), &reason),
            }
        }
    }

    /// Says of each connection whether it is ready.
    fn wait(&mut self, connections: &[DrainingConnection], accepting: bool) -> Vec<bool> {
        let mut sources: Vec<_> = connections.iter().map(DrainingConnection::poll_fd).collect();
        if let (true, ListenerState::Open(listener)) = (accepting, &self.listener_state) {
            sources.push(listener.source());
        }
        let deadline = connections.iter().filter_map(DrainingConnection::next_check).min();
        let interrupted = readiness::wait(&mut sources, deadline) == Err(Errno::EINTR);
        let ready = sources.iter().take(connections.len()).map(|source| source.any() == Some(true)).collect();
        if interrupted {
            self.handle_interrupt();
        }
        ready
    }

    /// How long to wait for a silent peer. When the whole server shuts down, its grace is
    /// the limit; when one worker leaves, there is none.
    pub(super) fn linger_timeouts(&self) -> LingerTimeouts {
        let grace = (self.scoreboard.phase() == Phase::Draining).then_some(self.grace);
        LingerTimeouts::within(grace, self.has_overflowed)
    }

    /// Accepts connections until none has come for as long as `quiet`; no longer
    /// than [`ACCEPTING`] says.
    fn accept_pending(&mut self, quiet: Duration) -> Accepted {
        let mut accepted = Accepted { connections: Vec::new(), is_stuck: false };
        let end = Instant::now() + ACCEPTING.min(self.grace / 8);
        let mut quiet_at = Instant::now() + quiet;
        while Instant::now() < end {
            // While connections come without a pause, no call is ever interrupted.
            if wakeup::is_pending() {
                self.handle_interrupt();
            }
            let ListenerState::Open(listener) = &self.listener_state else { break };
            let left = quiet_at.saturating_duration_since(Instant::now());
            match listener.has_waiting_within(left) {
                Ok(true) => {
                    // Another worker may accept the connection first, or the peer vanish:
                    // then the wakeup timer ends accept, and EINTR disarms it again.
                    wakeup::arm();
                    match self.accept() {
                        Ok(connection) => {
                            let timeouts = self.linger_timeouts();
                            accepted.connections.push(DrainingConnection::new(connection, &[], timeouts));
                        }
                        Err(AcceptAction::Interrupted | AcceptAction::Retry) => {}
                        Err(AcceptAction::Pause) => {
                            accepted.is_stuck = true;
                            self.pause(); // The wakeup timer has cut accept's own one short.
                            break;
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
        accepted
    }
}
