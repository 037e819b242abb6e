//! Shutdown after the accept queue has overflowed: clients believe that they are connected, and
//! appear in the queue only when their TCP sends again. One worker, the drainer, accepts and
//! serves until they have had the time.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use log::Level;
use nix::unistd::Pid;

use super::Supervisor;
use crate::listener::Listener;
use crate::sys::socket::half_open;
use crate::text::count;

/// After an overflow: a client whose handshake was cut short sends its first bytes again
/// after 0.2, 0.6, 1.4 s, and the kernel repeats its half of the handshake after 1 s.
const RETRANSMISSION: Duration = Duration::from_secs(2);

/// The wait for clients whose handshake was delayed, because the accept queue had overflowed
/// before the shutdown. It is longer if handshakes are still open.
#[derive(Debug)]
pub(super) struct Overflow {
    /// Clients have time until then to send again.
    pub(super) until: Instant,
    /// The handshakes that were open when the drainer was forked. None: unknown.
    half_open: Option<HashSet<String>>,
}

impl Overflow {
    /// For a shutdown that begins at `now`.
    pub(super) fn new(now: Instant, grace: Duration) -> Overflow {
        Overflow { until: now + grace / 3, half_open: None }
    }

    /// Reads which handshakes are open. If none is, the wait is short.
    pub(super) fn note_half_open(&mut self, began: Instant, address: SocketAddr) {
        self.half_open = half_open(address);
        if self.half_open.as_ref().is_some_and(HashSet::is_empty) {
            self.until = self.until.min(began + RETRANSMISSION);
        }
    }

    /// How many of these handshakes are still open. They have had room since then, and were not
    /// completed. None: the kernel's list takes too long to read.
    fn left_open(&self, address: SocketAddr) -> Option<usize> {
        match self.half_open.as_ref()? {
            none if none.is_empty() => Some(0),
            before => half_open(address).map(|now| before.intersection(&now).count()),
        }
    }
}

impl Supervisor<'_> {
    /// Has the accept queue overflowed? Tells the workers, too; call it before the phase changes.
    pub(super) fn look_for_overflow(&self) -> bool {
        let has_overflowed = self.listener.as_ref().is_some_and(Listener::has_overflowed);
        if has_overflowed {
            self.scoreboard.set_queue_has_overflowed();
        }
        has_overflowed
    }

    /// Tells the drainer to leave. It must be the last process to close the listening socket,
    /// at an instant at which the queue is empty. So the parent's copy is closed before.
    pub(super) fn end_overflow(&mut self, drainer: Pid, overflow: Overflow) {
        let cut = overflow.left_open(self.header.address);
        if cut != Some(0) {
            let clients = cut.map_or("clients".into(), |cut| count(cut as u64, "client"));
            self.log_event(Level::Warn, format!("{clients} whose handshake was never completed may be cut"));
            if cut.is_some() {
                self.mark_cut();
            }
        }
        self.listener = None;
        self.terminate(drainer);
    }
}
