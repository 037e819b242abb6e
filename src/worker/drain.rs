//! How a worker leaves: it finishes its client, and, when the whole server
//! leaves, serves whom the accept queue still holds.
//!
//! Whoever is in that queue is connected already, and closing the listening
//! socket would reset him. So the queue is swept before: by each worker when it
//! is done, and at the very end by one that is forked for it.

use std::time::{Duration, Instant};

use nix::errno::Errno;

use super::accept::Answer;
use super::{Intake, Worker, close};
use crate::echo::Host;
use crate::explain;
use crate::farewell::{self, Guest};
use crate::scoreboard::{Phase, State};
use crate::sys::signal;

/// A sweep takes clients off the queue for so long at the most.
const TAKING: Duration = Duration::from_secs(1);

/// Whom a look at the accept queue has brought.
struct Taken {
    guests: Vec<Guest>,
    /// More wait, and can't be accepted now.
    stuck: bool,
}

impl Worker {
    /// Finishes with clients before leaving.
    pub(super) fn finish(&mut self, guests: Vec<Guest>, buffer: &mut [u8]) {
        farewell::part_from(guests, self.patience, buffer, self, Worker::newcomers, close);
        self.row.parted();
    }

    /// Whom the queue holds when all leave, once: they are not to wait for a client
    /// that goes on and on.
    fn newcomers(&mut self) -> Vec<Guest> {
        if self.has_taken_queue || self.scoreboard.phase() != Phase::Draining {
            return Vec::new();
        }
        self.has_taken_queue = true;
        self.take_all(self.backlog.saturating_add(1), Duration::ZERO).guests
    }

    /// Before leaving with all others: serves whom the accept queue still holds.
    /// They are connected already, and closing the socket would reset them. The
    /// queue can't hold more than the backlog and one; who came later has no claim.
    pub(super) fn sweep(&mut self, buffer: &mut [u8]) {
        let mut claims = self.backlog.saturating_add(1);
        loop {
            let taken = self.take_all(claims, Duration::ZERO);
            if taken.guests.is_empty() && !taken.stuck {
                return;
            }
            claims -= taken.guests.len() as i32;
            self.finish(taken.guests, buffer);
        }
    }

    /// All others have left, this process alone holds the listening socket.
    /// Takes everybody off the queue, closes the socket when nobody has come for
    /// a while, and serves them after that, not before: a client that is served
    /// may come again at once, and whoever is let in last would be cut.
    pub(super) fn last_sweep(&mut self, buffer: &mut [u8]) {
        // A full queue drops the end of a handshake. That client believes that it
        // is connected, and is heard of when its TCP sends again, after 0.2 s: then
        // there must be room for it.
        if let Intake::Open(listener) = &self.intake {
            listener.resize(self.backlog);
        }
        let most = self.backlog.saturating_add(1);
        let mut taken = self.take_all(most, self.patience.quiet);
        while taken.stuck {
            // No descriptors are left: serving some first gives theirs back.
            self.finish(taken.guests, buffer);
            taken = self.take_all(most, self.patience.quiet);
        }
        if matches!(self.intake, Intake::Open(_)) {
            self.intake = Intake::Swept;
        }
        self.finish(taken.guests, buffer);
    }

    /// Accepts whoever waits, `most` at the most, until nobody has come for as
    /// long as `silence`; [`TAKING`] at the most.
    fn take_all(&mut self, most: i32, silence: Duration) -> Taken {
        let mut taken = Taken { guests: Vec::new(), stuck: false };
        let end = Instant::now() + TAKING;
        let mut quiet_at = Instant::now() + silence;
        while taken.guests.len() < most as usize && Instant::now() < end {
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
                    quiet_at = Instant::now() + silence;
                }
                Err(Errno::EINTR) => self.look_around(),
                Ok(false) => {
                    explain!("poll({}) = 0: nobody waits in the accept queue", listener.fd());
                    break;
                }
                Err(_) => break,
            }
        }
        taken
    }
}
