//! How a worker that leaves parts from its clients: without a loss, and from all
//! of them at once, so that nobody waits for a neighbour who never falls quiet
//! or never reads. The one place where one process serves several clients.
//!
//! Closing at once would lose bytes: a close with bytes unread sends a reset, and
//! that destroys those on their way to the client (RFC 1122, 4.2.2.13). So each
//! client is served until its line has been quiet for a moment: nothing has come, and
//! nothing that was sent is being taken. Then we say that no more comes, and read
//! until it says the same, for another moment.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::echo::{self, CloseReason, Connection, WorkerHooks};
use crate::explain;
use crate::sys::socket::send_queue_len;

/// How long to wait for a client that gives no sign of life.
#[derive(Debug, Clone, Copy)]
pub struct LingerTimeouts {
    /// For more bytes, and for the answer to our end of file. Longer than most
    /// round trips.
    pub quiet: Duration,
    /// For one that has not taken all bytes to take some: a slow reader's system
    /// tells of it only now and then.
    taking: Duration,
}

impl LingerTimeouts {
    /// `grace`: for a server that shuts down, less where its grace is short.
    pub fn within(grace: Option<Duration>) -> LingerTimeouts {
        let at_most = |duration: Duration| grace.map_or(duration, |grace| duration.min(grace / 4));
        LingerTimeouts { quiet: at_most(Duration::from_millis(300)), taking: at_most(Duration::from_secs(2)) }
    }
}

/// A client on its way out.
#[derive(Debug)]
pub struct DrainingConnection {
    client: Connection,
    stage: Stage,
    /// Received, and not yet sent back.
    pending: Vec<u8>,
    /// The latest sign of life that we have seen,
    alive_at: Instant,
    /// how many bytes it had not taken by then, and when to look again.
    unsent: usize,
    next_check: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    Echoing,
    /// We have said that no more comes.
    Lingering,
}

impl DrainingConnection {
    /// A client of whom so many bytes were received and not yet sent back.
    pub fn new(client: Connection, pending: &[u8]) -> DrainingConnection {
        // This connection's flag alone: the listening socket has its own. An
        // error would be for a client that is gone, as recv will tell.
        let _ = client.socket.set_nonblocking(true);
        let now = Instant::now();
        let unsent = send_queue_len(&client.socket).unwrap_or(0);
        DrainingConnection {
            client,
            stage: Stage::Echoing,
            pending: pending.to_vec(),
            alive_at: now,
            unsent,
            next_check: now,
        }
    }

    /// What the connection waits for: bytes, or room to send the rest.
    pub fn source(&self) -> PollFd<'_> {
        let wanted = if self.pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        PollFd::new(self.client.socket.as_fd(), wanted)
    }

    /// When [`DrainingConnection::advance`] has something to do although the connection is not ready.
    pub fn next_check(&self) -> Instant {
        self.next_check
    }

    /// The connection, to be closed.
    pub fn into_client(self) -> Connection {
        self.client
    }

    /// Serves the connection once, if it is ready, and does what is due. Never blocks.
    /// Break: it is done, and is to be closed.
    pub fn advance(
        &mut self,
        ready: bool,
        patience: LingerTimeouts,
        buffer: &mut [u8],
        host: &mut impl WorkerHooks,
    ) -> ControlFlow<CloseReason> {
        if ready && self.serve(buffer, host)? {
            self.touch(patience);
        }
        if Instant::now() < self.next_check {
            return Continue(());
        }
        let unsent = send_queue_len(&self.client.socket).unwrap_or(0);
        let takes = unsent < self.unsent;
        self.unsent = unsent;
        if takes {
            self.touch(patience);
            return Continue(());
        }
        let limit = self.limit(patience);
        if limit.is_none_or(|limit| self.alive_at.elapsed() < limit) {
            self.look_again(limit);
            return Continue(());
        }
        // Something may have come since poll looked, if it looked: a signal ends it.
        if !ready && self.pending.is_empty() && self.serve(buffer, host)? {
            self.touch(patience);
            return Continue(());
        }
        self.layer(patience)
    }

    /// Without a sign of life, for so long.
    fn limit(&self, patience: LingerTimeouts) -> Option<Duration> {
        match self.stage {
            Stage::Echoing if !self.pending.is_empty() => self.client.idle_timeout,
            Stage::Echoing if self.unsent > 0 => Some(patience.taking),
            _ => Some(patience.quiet),
        }
    }

    fn touch(&mut self, patience: LingerTimeouts) {
        self.alive_at = Instant::now();
        self.look_again(self.limit(patience));
    }

    /// When the limit is over; and now and then before, where there is something to
    /// be taken.
    fn look_again(&mut self, limit: Option<Duration>) {
        let now_and_then = Instant::now() + echo::check_interval(self.client.idle_timeout);
        let over = limit.map(|limit| self.alive_at + limit);
        self.next_check = match over {
            Some(over) if self.pending.is_empty() && self.unsent == 0 => over,
            Some(over) => over.min(now_and_then),
            None => now_and_then,
        };
    }

    /// Nothing has happened for as long as the stage allows: on to the next one.
    fn layer(&mut self, patience: LingerTimeouts) -> ControlFlow<CloseReason> {
        match self.stage {
            Stage::Echoing if !self.pending.is_empty() => Break(CloseReason::Idle),
            Stage::Echoing => {
                let fd = self.client.socket.as_raw_fd();
                self.stage = Stage::Lingering;
                self.client
                    .socket
                    .shutdown(Shutdown::Write)
                    .map_or_else(|error| Break(CloseReason::Lost(error)), Continue)?;
                explain!("shutdown({fd}, SHUT_WR) = 0: the client is quiet, and reads an end of file now");
                self.touch(patience);
                Continue(())
            }
            Stage::Lingering => {
                explain!(
                    "poll() = 0: the client hasn't closed within {:.1?}, so we close first",
                    patience.quiet
                );
                Break(CloseReason::Left)
            }
        }
    }

    /// What the connection is ready for. Says whether that was a sign of life.
    fn serve(&mut self, buffer: &mut [u8], host: &mut impl WorkerHooks) -> ControlFlow<CloseReason, bool> {
        match self.stage {
            Stage::Echoing => self.echo_once(buffer, host),
            Stage::Lingering => {
                match self.client.socket.read(buffer) {
                    Ok(0) => {
                        explain!(
                            "recv({}) = 0: end of file, the client has heard",
                            self.client.socket.as_raw_fd()
                        );
                        return Break(CloseReason::Left);
                    }
                    // Too late to be echoed, and read all the same: see above.
                    Ok(_) => {}
                    Err(error) => is_retryable(error)?,
                }
                Continue(false)
            }
        }
    }

    /// One recv, unless the last one's bytes are still here, and one send.
    fn echo_once(
        &mut self,
        buffer: &mut [u8],
        host: &mut impl WorkerHooks,
    ) -> ControlFlow<CloseReason, bool> {
        let fd = self.client.socket.as_raw_fd();
        if self.pending.is_empty() {
            match self.client.socket.read(buffer) {
                Ok(0) => {
                    explain!("recv({fd}) = 0: end of file, the client sends no more");
                    return Break(CloseReason::EndOfFile);
                }
                Ok(length) => {
                    explain!("recv({fd}) = {length}: so many bytes have come");
                    self.pending.extend_from_slice(&buffer[..length]);
                }
                Err(error) => {
                    is_retryable(error)?;
                    return Continue(false);
                }
            }
        }
        match echo::send(&mut self.client, &self.pending, host) {
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(error) => is_retryable(error)?,
        }
        self.unsent = send_queue_len(&self.client.socket).unwrap_or(0);
        Continue(true)
    }
}

fn is_retryable(error: io::Error) -> ControlFlow<CloseReason> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Continue(()),
        _ => Break(CloseReason::Lost(error)),
    }
}
