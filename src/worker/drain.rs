//! How a worker leaves: it finishes its client. When the whole server leaves, one more
//! worker, forked for it, drains the accept queue.
//!
//! The connections in that queue are established already, and closing the listening
//! socket would reset them. So the final drain accepts all of them before it closes
//! the socket. It serves them after that, not before: a client that is served may
//! connect again at once, and the connection accepted last would be cut.
//!
//! A full accept queue drops the end of handshakes. Such clients believe that they are
//! connected, and their connections appear in the queue when their TCP sends again,
//! 0.2, 0.6, 1.4 s after their first bytes, or when the kernel repeats its half of the
//! handshake, after 1 s. After an overflow the drain begins with a phase in which
//! connections are accepted and served until the parent says that all had the time.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::poll;

use super::accept::AcceptAction;
use super::{ListenerState, Worker, close};
use crate::echo::WorkerHooks;
use crate::explain;
use crate::scoreboard::{Phase, State};
use crate::sys::signal;
use crate::sys::socket::timeout_until;
use crate::text::count;
use crate::worker::linger::{DrainingConnection, LingerTimeouts};

/// The final drain takes connections off the queue for so long at the most: where new
/// ones never cease, it has to end.
const TAKING: Duration = Duration::from_secs(1);

/// What a look at the accept queue has brought.
struct Accepted {
    draining: Vec<DrainingConnection>,
    /// More wait, and can't be accepted now.
    stuck: bool,
}

impl Worker {
    /// Finishes with connections before leaving. The listening socket is closed first:
    /// its queue must not stay open when no process takes from it any more. When the
    /// whole server leaves, what waits there is taken along: the parent may be unable to
    /// fork the worker that drains the rest.
    pub(super) fn finish(&mut self, mut draining: Vec<DrainingConnection>, buffer: &mut [u8]) {
        if self.scoreboard.phase() == Phase::Draining {
            draining.extend(self.accept_pending(Duration::ZERO).draining);
        }
        if matches!(self.listener_state, ListenerState::Open(_)) {
            self.listener_state = ListenerState::Closed;
        }
        if !draining.is_empty() {
            let connections = count(draining.len() as u64, "connection");
            let quiet = self.patience().quiet;
            explain!("poll(): {connections} to finish, each when it has been quiet for {quiet:.1?}");
        }
        while !draining.is_empty() {
            self.serve_once(&mut draining, false, buffer);
        }
        self.row.clear_peer();
    }

    /// The accept queue has overflowed: until the parent asks to leave, accepts whatever
    /// comes, and serves it at once. Returns the connections that are still open.
    pub(super) fn serve_overflow(&mut self, buffer: &mut [u8]) -> Vec<DrainingConnection> {
        let mut draining = Vec::new();
        while !self.is_stopping() && matches!(self.listener_state, ListenerState::Open(_)) {
            draining.extend(self.accept_pending(Duration::ZERO).draining);
            if draining.is_empty() {
                self.row.clear_peer();
            }
            self.serve_once(&mut draining, true, buffer);
        }
        draining
    }

    /// This process alone holds the listening socket. Accepts all connections, closes
    /// the socket when none has come for a while, and serves them after that. Some may
    /// be open already.
    pub(super) fn final_drain(&mut self, mut draining: Vec<DrainingConnection>, buffer: &mut [u8]) {
        loop {
            let taken = self.accept_pending(self.patience().quiet);
            draining.extend(taken.draining);
            if !taken.stuck {
                break;
            }
            // No descriptors are left: finishing one connection gives back its own.
            let open = draining.len();
            while open > 0 && draining.len() == open {
                self.serve_once(&mut draining, false, buffer);
            }
        }
        if let ListenerState::Open(listener) = &self.listener_state {
            self.has_cut = listener.has_waiting();
        }
        self.finish(draining, buffer);
    }

    /// Waits until a connection is ready, or due to be looked at, or, if `accepting`,
    /// another one waits in the queue; serves those that are ready.
    fn serve_once(&mut self, draining: &mut Vec<DrainingConnection>, accepting: bool, buffer: &mut [u8]) {
        self.before_recv();
        if draining.is_empty() {
            self.row.set_state(State::Idle);
        }
        let patience = self.patience();
        let ready = self.wait(draining, accepting);
        let mut staying = Vec::with_capacity(draining.len());
        for (mut connection, ready) in draining.drain(..).zip(ready) {
            match connection.advance(ready, patience, buffer, self).break_value() {
                Some(end) => close(connection.into_client(), &end),
                None => staying.push(connection),
            }
        }
        *draining = staying;
    }

    /// Says of each connection whether it is ready.
    fn wait(&mut self, draining: &[DrainingConnection], accepting: bool) -> Vec<bool> {
        let mut sources: Vec<_> = draining.iter().map(DrainingConnection::source).collect();
        if let (true, ListenerState::Open(listener)) = (accepting, &self.listener_state) {
            sources.push(listener.source());
        }
        let deadline = draining.iter().map(DrainingConnection::next_check).min();
        let interrupted = poll(&mut sources, timeout_until(deadline)) == Err(Errno::EINTR);
        let ready = sources.iter().take(draining.len()).map(|source| source.any() == Some(true)).collect();
        if interrupted {
            self.handle_interrupt();
        }
        ready
    }

    /// How long to wait for a silent peer: when the whole server leaves, its grace is
    /// the limit; when one worker does, nothing presses.
    fn patience(&self) -> LingerTimeouts {
        LingerTimeouts::within((self.scoreboard.phase() == Phase::Draining).then_some(self.grace))
    }

    /// Accepts whatever waits until nothing has come for as long as `quiet`; for
    /// [`TAKING`] at the most.
    fn accept_pending(&mut self, quiet: Duration) -> Accepted {
        let mut taken = Accepted { draining: Vec::new(), stuck: false };
        let end = Instant::now() + TAKING;
        let mut quiet_at = Instant::now() + quiet;
        while Instant::now() < end {
            // Where one client follows the other, no call is ever interrupted.
            if signal::is_pending() {
                self.handle_interrupt();
            }
            let ListenerState::Open(listener) = &self.listener_state else { break };
            let left = quiet_at.saturating_duration_since(Instant::now());
            match listener.has_waiting_within(left) {
                Ok(true) => {
                    // Another worker may be quicker, or the client vanish: then
                    // the bell ends the wait, and EINTR silences it again.
                    signal::arm();
                    match self.accept() {
                        Ok(client) => taken.draining.push(DrainingConnection::new(client, &[])),
                        Err(AcceptAction::Look | AcceptAction::Again) => {}
                        Err(AcceptAction::Pause) => {
                            taken.stuck = true;
                            self.pause(); // The bell has cut accept's own one short.
                            break;
                        }
                        Err(AcceptAction::Leave) => break,
                    }
                    self.row.set_state(State::Draining);
                    quiet_at = Instant::now() + quiet;
                }
                Err(Errno::EINTR) => self.handle_interrupt(),
                Ok(false) => {
                    explain!("poll({}) = 0: no connection waits in the accept queue", listener.fd());
                    break;
                }
                Err(_) => break,
            }
        }
        taken
    }
}
