//! Has the accept queue overflowed? Then clients may be connected of which the server does not
//! know: the end of their handshake was dropped.
//!
//! The kernel counts two things. A socket counts the segments that it has dropped; it does so when
//! its accept queue is full, and when a client resets a handshake, as health checks do. The network
//! namespace counts how often accept queues were full, of all its sockets. Only both together tell.

use super::Listener;
use crate::sys::socket::{drops, queue_overflows};

impl Listener {
    /// Has this socket dropped segments, as far as the system tells?
    pub(crate) fn has_dropped(&self) -> bool {
        drops(&self.socket).is_some_and(|drops| drops > 0)
    }

    /// Has the accept queue overflowed, as far as the system tells? Only the parent can ask:
    /// workers are in the sandbox.
    pub(crate) fn has_overflowed(&self) -> bool {
        self.has_dropped() && (self.overflows_before.is_none() || queue_overflows() != self.overflows_before)
    }

    /// How often accept queues had overflowed before this one was there. None: unknown.
    pub(crate) fn overflows_before(&self) -> Option<u64> {
        self.overflows_before
    }
}
