//! The client's end of a connection: socket, connect, send, recv, shutdown, and the
//! longest wait for each. `client` holds one stream, `bench` many.
//!
//! A client that sends more than the buffers on the way hold must receive at the same
//! time: a server that can't send its answers stops reading, and then both would wait in
//! send for ever. [`Stream::set_nonblocking`] is for that. Then `bench` waits by a poller;
//! `client`, which waits for its input as well, by select. On macOS the flag MSG_DONTWAIT
//! would not do instead: send ignores it there.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::error::{ClientError, Transfer, is_reset, no_answer};
use crate::log::narrate::client as narrate;
use crate::sys::socket::connect;

/// What one recv takes at the most, in bytes.
pub(super) const CHUNK: usize = 64 * 1024;

/// No client sends so many bytes before they have come back: far more than the
/// buffers on the way hold, and less than would hurt where a server only reads.
pub(super) const MAX_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// The end of a measurement. It holds even if the server sends a byte now and then.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// No message is sent that is due later.
    pub end: Instant,
    /// All that is in flight at the end is waited for so long, in all.
    pub grace: Duration,
}

impl Limit {
    /// When all waiting ends.
    pub(super) fn deadline(self) -> Instant {
        self.end + self.grace
    }
}

/// The time until then in whole milliseconds, and never 0: as the time-out of a socket
/// that would be for ever.
pub(super) fn time_left(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    Duration::from_millis(left.as_millis() as u64 + 1)
}

/// A connection to a server. Dropping it closes the connection.
#[derive(Debug)]
pub struct Stream {
    pub(super) socket: Socket,
    /// The address of the server's end.
    pub peer: SocketAddr,
    /// The address of this end; the kernel has chosen the port.
    pub local: SocketAddr,
    /// The longest wait for a byte that is due; None is for ever.
    pub(super) timeout: Option<Duration>,
    /// When all waiting ends, if it does.
    pub(super) limit: Option<Limit>,
    /// Whether send and receive wait, until the time-out of the socket has once ended a
    /// wait: then poll does, up to the deadline.
    pub(super) blocks: bool,
    /// Whether send or shutdown has told of a reset. What came before the reset can
    /// still be received.
    pub(super) is_reset: bool,
    /// How far its bytes have come.
    pub(super) transfer: Transfer,
}

impl Stream {
    /// Connects to the first of `addresses` that accepts the connection, waiting for each
    /// no longer than `timeout`, and for all of them no longer than until the limit.
    ///
    /// # Errors
    /// The first error, if none of them accepts it.
    pub fn open(
        addresses: &[SocketAddr],
        timeout: Option<Duration>,
        limit: Option<Limit>,
    ) -> Result<Stream, ClientError> {
        let mut attempts = addresses.iter().map(|&peer| {
            let connect_timeout =
                limit.map(|limit| time_left(limit.deadline())).into_iter().chain(timeout).min();
            Self::connect(peer, timeout, limit, connect_timeout)
                .map_err(|error| ClientError::connecting(peer, &error, connect_timeout))
        });
        let first = attempts.next().expect("there is one address at least");
        first.or_else(|error| attempts.find_map(Result::ok).ok_or(error))
    }

    fn connect(
        peer: SocketAddr,
        timeout: Option<Duration>,
        limit: Option<Limit>,
        connect_timeout: Option<Duration>,
    ) -> io::Result<Stream> {
        let socket = Self::socket(peer, timeout.or(limit.map(|limit| limit.grace)), connect_timeout)?;
        narrate::connecting(&socket, peer);
        let called = Instant::now();
        connect(&socket, peer, connect_timeout)
            .inspect_err(|error| narrate::connect_failed(&socket, peer, error))?;
        narrate::connected(&socket, peer, called);
        Self::connected(socket, peer, timeout, limit)
    }

    /// A socket that is not connected yet, with its time-outs, if it has any.
    pub(super) fn socket(
        peer: SocketAddr,
        timeout: Option<Duration>,
        connect_timeout: Option<Duration>,
    ) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        narrate::created(&socket);
        // Without a time-out a recv that begins before the end could last for ever.
        if let Some(timeout) = timeout {
            socket.set_read_timeout(Some(timeout))?;
            socket.set_write_timeout(connect_timeout)?;
            narrate::timeouts_set(&socket, timeout);
        }
        // A message goes out at once instead of waiting to be joined with the next.
        socket.set_tcp_nodelay(true)?;
        narrate::nodelay_set(&socket);
        Ok(socket)
    }

    /// The stream of a socket that has connected.
    pub(super) fn connected(
        socket: Socket,
        peer: SocketAddr,
        timeout: Option<Duration>,
        limit: Option<Limit>,
    ) -> io::Result<Stream> {
        // On macOS getsockname fails if the connection has been reset already.
        let local = socket.local_addr().map_err(|_| ErrorKind::ConnectionReset)?;
        let local = local.as_socket().unwrap_or(peer);
        // The kernel may choose for this end the very port that is called, if nothing
        // listens there; then TCP connects the socket with itself.
        if local == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        narrate::local_address(&socket, local);
        let (blocks, is_reset, transfer) = (true, false, Transfer::default());
        Ok(Stream { socket, peer, local, timeout, limit, blocks, is_reset, transfer })
    }

    /// From now on send and receive return at once, and [`Stream::wait`] waits.
    pub(super) fn set_nonblocking(&mut self) -> Result<(), ClientError> {
        if self.blocks {
            self.socket.set_nonblocking(true).map_err(|error| self.transfer.broken(&error))?;
            self.blocks = false;
            narrate::nonblocking(&self.socket);
        }
        Ok(())
    }

    /// Sends as much as there is room for, and says how much that was: nothing on a
    /// connection that is reset. What had come before the reset can still be received.
    ///
    /// # Errors
    /// If the connection is broken in another way.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<usize, ClientError> {
        let sent = self.send_uncounted(bytes)?;
        if sent > 0 {
            narrate::sent(&self.socket, sent);
            self.transfer.sent += sent as u64;
        }
        Ok(sent)
    }

    /// The same, with the same errors, of bytes that are not to come back.
    pub(super) fn send_uncounted(&mut self, bytes: &[u8]) -> Result<usize, ClientError> {
        while !bytes.is_empty() && !self.is_reset {
            match self.socket.send(bytes) {
                Ok(sent) => return Ok(sent),
                // The process was stopped and continued (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.set_nonblocking()?;
                    break;
                }
                Err(error) if is_reset(&error) => {
                    narrate::send_failed(&self.socket, &error);
                    self.is_reset = true;
                }
                Err(error) => return Err(self.transfer.broken(&error)),
            }
        }
        Ok(0)
    }

    /// Receives what has come, or if the stream blocks, what comes next. 0 bytes are the
    /// end of file. None: nothing has come, and [`Stream::wait`] is to be called. Bytes
    /// have been due since `due`, if any are.
    ///
    /// # Errors
    /// If the connection is broken, or nothing came in time.
    pub(super) fn receive(
        &mut self,
        buffer: &mut [u8],
        due: Option<Instant>,
    ) -> Result<Option<usize>, ClientError> {
        if let Some((limit, due)) = self.limit.zip(due) {
            if limit.deadline() <= due {
                return Err(self.overdue());
            }
            // Each byte that comes after the end would renew the time-out of recv.
            if limit.end <= due {
                self.set_nonblocking()?;
            }
        }
        // Asked before recv: a process that was stopped for long may find the bytes there.
        let is_overdue = !self.blocks && self.deadline(due).is_some_and(|at| at <= Instant::now());
        loop {
            match self.socket.read(buffer) {
                Ok(length) => {
                    narrate::received(&self.socket, length);
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock && is_overdue => {
                    return Err(self.overdue());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.set_nonblocking()?;
                    return Ok(None);
                }
                Err(error) => return Err(self.transfer.broken(&error)),
            }
        }
    }

    /// When the wait ends for bytes that have been due since `due`.
    pub(super) fn deadline(&self, due: Option<Instant>) -> Option<Instant> {
        let timeout = due.zip(self.timeout).map(|(due, timeout)| due + timeout);
        timeout.into_iter().chain(self.limit.map(Limit::deadline)).min()
    }

    /// What is due has not come for too long.
    pub(super) fn overdue(&self) -> ClientError {
        let by_timeout = if self.timeout.is_some() { " (--timeout)" } else { "" };
        self.transfer.overdue(match self.limit {
            Some(limit) if limit.deadline() <= Instant::now() => {
                let grace = humantime::format_duration(limit.grace);
                format!("no whole answer within {grace}{by_timeout} of the end (--duration)")
            }
            _ => no_answer(self.timeout.unwrap_or_default()) + by_timeout,
        })
    }

    /// The end of file has come too early.
    pub(super) fn lost(&self) -> ClientError {
        match self.is_reset {
            true => self.transfer.broken(&ErrorKind::ConnectionReset.into()),
            false => self.transfer.lost(),
        }
    }

    /// Counts bytes that have come back.
    ///
    /// # Errors
    /// If they aren't the `expected` ones, which are as many.
    pub(super) fn check(&mut self, expected: &[u8], got: &[u8]) -> Result<(), ClientError> {
        if expected == got {
            self.transfer.returned += got.len() as u64;
            return Ok(());
        }
        let right = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
        self.transfer.returned += right as u64;
        Err(self.transfer.wrong(expected[right], got[right]))
    }

    /// Says that nothing more will be sent; the server is to do the same when all has
    /// come back.
    ///
    /// # Errors
    /// If the connection is broken other than by a reset, which receive will tell.
    pub(super) fn half_close(&mut self) -> Result<(), ClientError> {
        match self.socket.shutdown(Shutdown::Write) {
            Ok(()) => narrate::half_closed(&self.socket),
            Err(error) if is_reset(&error) => self.is_reset = true,
            Err(error) => return Err(self.transfer.broken(&error)),
        }
        Ok(())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        narrate::closing(&self.socket);
    }
}
