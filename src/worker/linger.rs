//! Lingering close: a worker that stops closes its connections without losing bytes.
//!
//! To close at once would lose some: a close with bytes unread sends a reset, and a reset
//! destroys the bytes in flight to the peer (RFC 1122, 4.2.2.13). So each connection is
//! served until it has been quiet for a moment: nothing has come, and nothing that was sent
//! is being taken. Then it is half-closed, and read for another moment until the peer
//! closes too.
//!
//! A connection here never blocks, so that no other waits for one that never falls quiet or
//! never reads. The loop over all of them is the worker's, in `drain`.

use std::io::Read;
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::echo::progress::Progress;
use crate::echo::{self, CloseReason, Connection, WorkerHooks, close_unless_retryable};
use crate::log::narrate::worker as narrate;

/// How long to wait for a silent peer.
#[derive(Debug, Clone, Copy)]
pub(super) struct LingerTimeouts {
    /// For more bytes, and for the peer's end of file after ours. Longer than most round
    /// trips.
    pub quiet: Duration,
    /// For the first bytes. If the accept queue has overflowed, the peer's TCP may have to
    /// send them again: after 0.2, 0.6, 1.4 and 3.0 s, whatever the handshake does meanwhile.
    first: Duration,
    /// For a peer with bytes in the send queue to take some: the TCP of a slow reader
    /// reports room only now and then.
    taking: Duration,
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

/// A connection of a worker that is stopping.
#[derive(Debug)]
pub(super) struct DrainingConnection {
    connection: Connection,
    stage: Stage,
    /// Bytes received, and not yet sent back.
    pending: Vec<u8>,
    progress: Progress,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Echoing,
    /// The connection is half-closed.
    Lingering,
}

impl DrainingConnection {
    /// A connection with bytes `pending`, which were received and not yet sent back.
    pub fn new(connection: Connection, pending: &[u8], timeouts: LingerTimeouts) -> DrainingConnection {
        // It is this connection's flag alone: the listening socket has its own. If the
        // connection is broken this fails, and recv will say so.
        let _ = connection.socket.set_nonblocking(true);
        let (queued, progress) = (connection.queued(), Progress::new(connection.idle_timeout));
        let pending = pending.to_vec();
        let mut new = DrainingConnection { connection, stage: Stage::Echoing, pending, progress };
        new.touch(queued, timeouts);
        new
    }

    /// What the connection waits for: bytes, or room to send the rest.
    pub fn poll_fd(&self) -> PollFd<'_> {
        let wanted = if self.pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        PollFd::new(self.connection.socket.as_fd(), wanted)
    }

    /// When [`DrainingConnection::advance`] has something to do although the connection is
    /// not ready.
    pub fn next_check(&self) -> Option<Instant> {
        self.progress.next_check()
    }

    /// The connection, to be closed.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Serves the connection once, if it is ready, and does what is due. Never blocks.
    ///
    /// # Errors
    /// The connection has ended, and is to be closed.
    pub fn advance(
        &mut self,
        is_ready: bool,
        timeouts: LingerTimeouts,
        buffer: &mut [u8],
        hooks: &mut impl WorkerHooks,
    ) -> Result<(), CloseReason> {
        if is_ready && self.serve(buffer, hooks)? {
            self.touch(self.connection.queued(), timeouts);
        }
        let now = Instant::now();
        if self.next_check().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.progress.check(self.connection.queued(), Duration::ZERO, now);
        self.progress.idle_timeout = self.limit(timeouts);
        if !self.progress.is_idle(now) {
            return Ok(());
        }
        // Bytes may have come since poll looked, or a signal has ended poll.
        if !is_ready && self.pending.is_empty() && self.serve(buffer, hooks)? {
            self.touch(self.connection.queued(), timeouts);
            return Ok(());
        }
        self.end_stage(timeouts)
    }

    /// Notes that the peer has made progress, or that a new wait begins.
    fn touch(&mut self, queued: usize, timeouts: LingerTimeouts) {
        self.progress.made(queued, Instant::now());
        self.progress.idle_timeout = self.limit(timeouts);
    }

    /// How long the stage goes on without progress.
    fn limit(&self, timeouts: LingerTimeouts) -> Option<Duration> {
        match self.stage {
            Stage::Echoing if !self.pending.is_empty() => self.connection.idle_timeout,
            Stage::Echoing if self.progress.queued() > 0 => Some(timeouts.taking),
            Stage::Echoing if self.connection.echoed == 0 => Some(timeouts.first),
            _ => Some(timeouts.quiet),
        }
    }

    /// There was no progress for as long as the stage goes on without.
    fn end_stage(&mut self, timeouts: LingerTimeouts) -> Result<(), CloseReason> {
        match self.stage {
            Stage::Echoing if !self.pending.is_empty() => Err(CloseReason::Idle),
            Stage::Echoing => {
                self.stage = Stage::Lingering;
                self.connection.socket.shutdown(Shutdown::Write).map_err(CloseReason::Lost)?;
                narrate::half_closed(self.connection.fd());
                // Not measured anew: the end of file is in the queue, and is no byte to take.
                self.touch(self.progress.queued(), timeouts);
                Ok(())
            }
            Stage::Lingering => {
                narrate::closes_first(timeouts.quiet);
                Err(CloseReason::Left)
            }
        }
    }

    /// Makes the calls that the connection is ready for. Returns whether they were progress:
    /// after the half-close bytes are read, but are too late to be echoed.
    fn serve(&mut self, buffer: &mut [u8], hooks: &mut impl WorkerHooks) -> Result<bool, CloseReason> {
        let fd = self.connection.fd();
        if self.pending.is_empty() {
            let length = match self.connection.socket.read(buffer) {
                Ok(length) => length,
                Err(error) => return close_unless_retryable(error, hooks).map(|()| false),
            };
            match self.stage {
                Stage::Lingering if length == 0 => {
                    narrate::end_of_file_answered(fd);
                    return Err(CloseReason::Left);
                }
                Stage::Lingering => return Ok(false),
                Stage::Echoing => narrate::received(fd, length),
            }
            if length == 0 {
                return Err(CloseReason::EndOfFile);
            }
            self.pending.extend_from_slice(&buffer[..length]);
        }
        match echo::send(&mut self.connection, &self.pending, hooks) {
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(error) => close_unless_retryable(error, hooks)?,
        }
        Ok(true)
    }
}
