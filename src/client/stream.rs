//! The client's end of a connection: socket, connect, send, recv, and what can
//! go wrong with each. `client` holds one, `bench` many.
//!
//! Who sends more than the buffers on the way hold must receive at the same time:
//! a server that can't get rid of its answers stops reading, and then both would
//! wait in send for ever. [`Connection::never_block`] is for that. Then `bench` waits
//! by [`Connection::wait`]; `client`, which waits for its input as well, by itself. On
//! macOS the flag MSG_DONTWAIT would not do instead: send ignores it there.

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use super::error::is_reset;
pub use super::error::{ClientError, Kind};
pub use super::limit::Limit;
use super::limit::time_left;
use crate::error::strerror;
use crate::explain;
use crate::sys::socket::{connect, timeout_until};

/// What one recv takes at the most, in bytes.
pub const CHUNK: usize = 64 * 1024;

/// No client sends so many bytes before they have come back: far more than the
/// buffers on the way hold, and less than would hurt where a server only reads.
pub const MAX_IN_FLIGHT: usize = 64 * 1024 * 1024;

/// Connected to a server. Dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// The server's end.
    pub peer: SocketAddr,
    /// Ours; the kernel has chosen the port.
    pub local: SocketAddr,
    /// The longest wait for a byte that is due; None is for ever.
    pub(super) timeout: Option<Duration>,
    /// When all waiting ends, if it does.
    pub(super) limit: Option<Limit>,
    /// Do send and receive wait?
    blocks: bool,
    /// send or shutdown has told of a reset; what came before it can still be received.
    pub(super) is_reset: bool,
    /// Bytes that the kernel has taken from us.
    pub sent: u64,
    /// Bytes that have come back, and were right.
    pub returned: u64,
}

impl Connection {
    /// Connects to the first of `addresses` that takes us, waiting for each no
    /// longer than `timeout`.
    ///
    /// # Errors
    /// The first error, if none does.
    pub fn open(addresses: &[SocketAddr], timeout: Option<Duration>) -> Result<Connection, ClientError> {
        Self::open_by(addresses, timeout, None)
    }

    /// The same, waiting in all no longer than until `deadline`.
    ///
    /// # Errors
    /// As [`Connection::open`].
    pub fn open_by(
        addresses: &[SocketAddr],
        timeout: Option<Duration>,
        deadline: Option<Instant>,
    ) -> Result<Connection, ClientError> {
        let mut first = None;
        for address in addresses {
            let connect_timeout = deadline.map(time_left).into_iter().chain(timeout).min();
            match Self::open_at(*address, timeout, connect_timeout) {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    first = first.or_else(|| Some(ClientError::connecting(*address, &error, connect_timeout)))
                }
            }
        }
        Err(first.expect("there is one address at least"))
    }

    fn open_at(
        peer: SocketAddr,
        timeout: Option<Duration>,
        connect_timeout: Option<Duration>,
    ) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        let fd = socket.as_raw_fd();
        explain!("socket() = {fd}: a new TCP socket is descriptor {fd}");
        socket.set_read_timeout(timeout)?;
        socket.set_write_timeout(connect_timeout)?;
        explain!("setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: no call is to wait for ever");
        // A message goes out at once instead of waiting to be joined with the next.
        socket.set_tcp_nodelay(true)?;
        explain!("setsockopt({fd}, TCP_NODELAY) = 0: each send is to go out at once");
        explain!("connect({fd}, {peer}): asleep until the kernel there answers");
        let called = Instant::now();
        connect(&socket, peer, connect_timeout).inspect_err(|error| {
            explain!("connect({fd}, {peer}): {}; so the socket is closed", strerror(error));
        })?;
        explain!(
            "connect({fd}, {peer}) = 0, after {:.1?}: the kernel there has connected us; nobody need have \
             accepted yet",
            called.elapsed()
        );
        // macOS doesn't say of a connection that is reset already.
        let local = socket.local_addr().map_err(|_| ErrorKind::ConnectionReset)?;
        let local = local.as_socket().unwrap_or(peer);
        // A client whose port the kernel chooses may get the very one that it calls,
        // if nobody listens there; then TCP connects it with itself.
        if local == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        explain!("getsockname({fd}) = {local}: the kernel has chosen the port of our end");
        let (limit, blocks, is_reset) = (None, true, false);
        Ok(Connection { socket, peer, local, timeout, limit, blocks, is_reset, sent: 0, returned: 0 })
    }

    /// From now on nothing is waited for beyond the limit. A receive that blocks needs
    /// [`Connection::hurry`] before it.
    ///
    /// # Errors
    /// None that can be caused.
    pub fn set_limit(&mut self, limit: Limit) -> Result<(), ClientError> {
        self.limit = Some(limit);
        // Otherwise a receive that has begun before the end could last for ever.
        if self.timeout.is_none() { self.set_read_timeout(limit.grace) } else { Ok(()) }
    }

    /// Once the end is over, at `now`, the next receive waits for what is left of the
    /// grace: each byte that came would renew the time-out.
    ///
    /// # Errors
    /// If nothing is left of it.
    pub fn hurry(&mut self, now: Instant) -> Result<(), ClientError> {
        match self.limit {
            Some(limit) if limit.deadline() <= now => Err(ClientError::overdue(self)),
            Some(limit) if limit.end <= now && self.blocks => {
                self.set_read_timeout(time_left(limit.deadline()))
            }
            _ => Ok(()),
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> Result<(), ClientError> {
        self.socket.set_read_timeout(Some(timeout)).map_err(|error| ClientError::broken(self, &error))
    }

    pub(super) fn is_over(&self) -> bool {
        self.limit.is_some_and(|limit| limit.deadline() <= Instant::now())
    }

    /// From now on send and receive return at once, and [`Connection::wait`] waits.
    ///
    /// # Errors
    /// None that can be caused.
    pub fn never_block(&mut self) -> Result<(), ClientError> {
        self.blocks = false;
        self.socket.set_nonblocking(true).map_err(|error| ClientError::broken(self, &error))?;
        explain!("fcntl({}, O_NONBLOCK) = 0: send and recv return at once", self.socket.as_raw_fd());
        Ok(())
    }

    /// Sends as much as there is room for, and says how much that was. Nothing is sent
    /// on a connection that is reset: what had come before is still there, and what
    /// receive says then is the end.
    ///
    /// # Errors
    /// If the connection is broken in another way; one that blocks, also if there was
    /// no room in time.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, ClientError> {
        let fd = self.socket.as_raw_fd();
        while !self.is_reset {
            match self.socket.send(bytes) {
                Ok(sent) => {
                    explain!("send({fd}) = {sent}: the kernel has taken so many bytes");
                    self.sent += sent as u64;
                    return Ok(sent);
                }
                // We were stopped and continued (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    // SO_SNDTIMEO has ended the wait (socket(7)).
                    return if self.blocks { Err(ClientError::overdue(self)) } else { Ok(0) };
                }
                Err(error) if is_reset(&error) => {
                    explain!("send({fd}): {}", strerror(&error));
                    self.is_reset = true;
                }
                Err(error) => return Err(ClientError::broken(self, &error)),
            }
        }
        Ok(0)
    }

    /// Receives what has come, or the next that comes: 0 bytes are the end of file.
    /// None: nothing is there yet.
    ///
    /// # Errors
    /// If the connection is broken; one that blocks, also if nothing came in time.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, ClientError> {
        let fd = self.socket.as_raw_fd();
        loop {
            match self.socket.read(buffer) {
                Ok(0) => {
                    explain!("recv({fd}) = 0: end of file, the server has closed its side");
                    return Ok(Some(0));
                }
                Ok(length) => {
                    explain!("recv({fd}) = {length}: so many bytes have come");
                    return Ok(Some(length));
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if !self.blocks {
                        return Ok(None);
                    }
                    if self.timeout.is_some() {
                        return Err(ClientError::overdue(self));
                    }
                    // Patience has no end but the limit.
                    self.hurry(Instant::now())?;
                }
                Err(error) => return Err(ClientError::broken(self, &error)),
            }
        }
    }

    /// Waits until bytes or an end of file are there, or there is `room` for more to
    /// be sent; or patience ends with bytes that have been due `since` then.
    ///
    /// # Errors
    /// None that can be caused.
    pub fn wait(&mut self, room: bool, since: Instant) -> Result<(), ClientError> {
        let room = if room && !self.is_reset { PollFlags::POLLOUT } else { PollFlags::empty() };
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN | room)];
        match poll(&mut ready, timeout_until(self.deadline(since))) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(ClientError::broken(self, &error.into())),
        }
    }

    /// When patience ends with bytes that have been due `since` then, or the limit is
    /// reached.
    pub fn deadline(&self, since: Instant) -> Option<Instant> {
        let limit = self.limit.map(Limit::deadline);
        self.timeout.map(|timeout| since + timeout).into_iter().chain(limit).min()
    }

    /// Has patience ended? Ask before you look for an answer: whoever was stopped for
    /// long finds it there.
    pub fn is_overdue(&self, since: Instant) -> bool {
        self.deadline(since).is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Counts bytes that have come back.
    ///
    /// # Errors
    /// If they aren't the `expected` ones, which are as many.
    pub fn check(&mut self, expected: &[u8], got: &[u8]) -> Result<(), ClientError> {
        if expected == got {
            self.returned += got.len() as u64;
            return Ok(());
        }
        let at = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
        self.returned += at as u64;
        Err(ClientError::wrong(self, expected[at], got[at]))
    }

    /// Says that we shall send no more; the server is to do the same when all has
    /// come back.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn half_close(&mut self) -> Result<(), ClientError> {
        let fd = self.socket.as_raw_fd();
        match self.socket.shutdown(Shutdown::Write) {
            Err(error) if is_reset(&error) => self.is_reset = true,
            Err(error) => return Err(ClientError::broken(self, &error)),
            Ok(()) => {
                explain!("shutdown({fd}, SHUT_WR) = 0: we send no more; what is on its way still comes back");
            }
        }
        Ok(())
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        explain!("close({}): the connection is over", self.socket.as_raw_fd());
    }
}
