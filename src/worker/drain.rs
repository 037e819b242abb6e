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

use super::accept::Answer;
use super::{Intake, Worker, close};
use crate::echo::Host;
use crate::explain;
use crate::farewell::{Guest, Patience};
use crate::logger::count;
use crate::scoreboard::{Phase, State};
use crate::sys::signal;
use crate::sys::socket::timeout_until;

/// The final drain takes connections off the queue for so long at the most: where new
/// ones never cease, it has to end.
const TAKING: Duration = Duration::from_secs(1);

/// What a look at the accept queue has brought.
struct Taken {
    guests: Vec<Guest>,
    /// More wait, and can't be accepted now.
    stuck: bool,
}

impl Worker {
    /// Finishes with connections before leaving. The listening socket is closed first:
    /// its queue must not stay open when no process takes from it any more. When the
    /// whole server leaves, what waits there is taken along: the parent may be unable to
    /// fork the worker that drains the rest.
    pub(super) fn finish(&mut self, mut guests: Vec<Guest>, buffer: &mut [u8]) {
        if self.scoreboard.phase() == Phase::Draining {
            guests.extend(self.take_all(Duration::ZERO).guests);
        }
        if matches!(self.intake, Intake::Open(_)) {
            self.intake = Intake::Closed;
        }
        if !guests.is_empty() {
            let connections = count(guests.len() as u64, "connection");
            let quiet = self.patience().quiet;
            explain!("poll(): {connections} to finish, each when it has been quiet for {quiet:.1?}");
        }
        while !guests.is_empty() {
            self.serve_once(&mut guests, false, buffer);
        }
        self.row.parted();
    }

    /// The accept queue has overflowed: until the parent asks to leave, accepts whatever
    /// comes, and serves it at once. Returns the connections that are still open.
    pub(super) fn serve_overflow(&mut self, buffer: &mut [u8]) -> Vec<Guest> {
        let mut guests = Vec::new();
        while !self.must_leave() && matches!(self.intake, Intake::Open(_)) {
            guests.extend(self.take_all(Duration::ZERO).guests);
            if guests.is_empty() {
                self.row.parted();
            }
            self.serve_once(&mut guests, true, buffer);
        }
        guests
    }

    /// This process alone holds the listening socket. Accepts all connections, closes
    /// the socket when none has come for a while, and serves them after that. Some may
    /// be open already.
    pub(super) fn final_drain(&mut self, mut guests: Vec<Guest>, buffer: &mut [u8]) {
        loop {
            let taken = self.take_all(self.patience().quiet);
            guests.extend(taken.guests);
            if !taken.stuck {
                break;
            }
            // No descriptors are left: finishing one connection gives back its own.
            let open = guests.len();
            while open > 0 && guests.len() == open {
                self.serve_once(&mut guests, false, buffer);
            }
        }
        if let Intake::Open(listener) = &self.intake {
            self.has_cut = listener.has_waiting();
        }
        self.finish(guests, buffer);
    }

    /// Waits until a connection is ready, or due to be looked at, or, if `accepting`,
    /// another one waits in the queue; serves those that are ready.
    fn serve_once(&mut self, guests: &mut Vec<Guest>, accepting: bool, buffer: &mut [u8]) {
        self.receiving();
        if guests.is_empty() {
            self.row.enter(State::Idle);
        }
        let patience = self.patience();
        let ready = self.wait(guests, accepting);
        let mut staying = Vec::with_capacity(guests.len());
        for (mut guest, ready) in guests.drain(..).zip(ready) {
            match guest.attend(ready, patience, buffer, self).break_value() {
                Some(end) => close(guest.into_client(), &end),
                None => staying.push(guest),
            }
        }
        *guests = staying;
    }

    /// Says of each connection whether it is ready.
    fn wait(&mut self, guests: &[Guest], accepting: bool) -> Vec<bool> {
        let mut sources: Vec<_> = guests.iter().map(Guest::source).collect();
        if let (true, Intake::Open(listener)) = (accepting, &self.intake) {
            sources.push(listener.source());
        }
        let deadline = guests.iter().map(Guest::look_at).min();
        let interrupted = poll(&mut sources, timeout_until(deadline)) == Err(Errno::EINTR);
        let ready = sources.iter().take(guests.len()).map(|source| source.any() == Some(true)).collect();
        if interrupted {
            self.look_around();
        }
        ready
    }

    /// How long to wait for a silent peer: when the whole server leaves, its grace is
    /// the limit; when one worker does, nothing presses.
    fn patience(&self) -> Patience {
        Patience::within((self.scoreboard.phase() == Phase::Draining).then_some(self.grace))
    }

    /// Accepts whatever waits until nothing has come for as long as `quiet`; for
    /// [`TAKING`] at the most.
    fn take_all(&mut self, quiet: Duration) -> Taken {
        let mut taken = Taken { guests: Vec::new(), stuck: false };
        let end = Instant::now() + TAKING;
        let mut quiet_at = Instant::now() + quiet;
        while Instant::now() < end {
            // Where one client follows the other, no call is ever interrupted.
            if signal::has_rung() {
                self.look_around();
            }
            let Intake::Open(listener) = &self.intake else { break };
            let left = quiet_at.saturating_duration_since(Instant::now());
            match listener.has_waiting_within(left) {
                Ok(true) => {
                    // Another worker may be quicker, or the client vanish: then
                    // the bell ends the wait, and EINTR silences it again.
                    signal::ring();
                    match self.accept() {
                        Ok(client) => taken.guests.push(Guest::new(client, &[])),
                        Err(Answer::Look | Answer::Again) => {}
                        Err(Answer::Pause) => {
                            taken.stuck = true;
                            self.pause(); // The bell has cut accept's own one short.
                            break;
                        }
                        Err(Answer::Leave) => break,
                    }
                    self.row.enter(State::Draining);
                    quiet_at = Instant::now() + quiet;
                }
                Err(Errno::EINTR) => self.look_around(),
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
