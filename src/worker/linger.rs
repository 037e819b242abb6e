//! Lingering close: how long a worker that stops waits for its peers, so that no byte is
//! lost.
//!
//! To close at once would lose some: a close with bytes unread sends a reset, and a reset
//! destroys the bytes in flight to the peer (RFC 1122, 4.2.2.13). So each connection is
//! served until it has been quiet for a moment: nothing has come, and nothing that was sent
//! is being acknowledged. Then it is half-closed, and read for another moment until the peer
//! closes too. The connection does that in `nonblocking`; the times are here.

use std::time::Duration;

/// How long to wait for a silent peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LingerTimeouts {
    /// For more bytes, and for the peer's end of file after ours. Longer than most round
    /// trips.
    pub quiet: Duration,
    /// For the first bytes. If the accept queue has overflowed, the peer's TCP may have to
    /// send them again: after 0.2, 0.6, 1.4 and 3.0 s, whatever the handshake does meanwhile.
    pub first: Duration,
    /// For a peer with bytes in the send queue to take some: the TCP of a slow reader
    /// reports room only now and then.
    pub taking: Duration,
}

impl LingerTimeouts {
    /// With the `grace` of a server that shuts down, they are only a part of it: several
    /// follow each other.
    pub fn within(grace: Option<Duration>, has_overflowed: bool) -> LingerTimeouts {
        let at_most = |part, duration: Duration| grace.map_or(duration, |grace| duration.min(grace / part));
        let quiet = at_most(8, Duration::from_millis(300));
        let long = at_most(4, Duration::from_secs(2));
        LingerTimeouts { quiet, first: if has_overflowed { long } else { quiet }, taking: long }
    }
}
