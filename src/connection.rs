//! The client's end of a connection: socket, connect, send, recv, and what can
//! go wrong with each. `client` holds one, `bench` many.
//!
//! Who sends more than the buffers on the way hold must receive at the same time:
//! a server that can't get rid of its answers stops reading, and then both would
//! wait in send for ever. [`Connection::never_block`] is for that. On macOS the
//! flag MSG_DONTWAIT would not do instead: send ignores it there.

mod trouble;

use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

pub use self::trouble::{Kind, Trouble};
use crate::exit::reason;
use crate::explain;
use crate::sys::socket::{connect, timeout_until};

/// Connected to a server. Dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    socket: Socket,
    /// The server's end.
    pub peer: SocketAddr,
    /// Ours; the kernel has chosen the port.
    pub local: SocketAddr,
    /// The longest wait for a byte that is due; None is for ever.
    timeout: Option<Duration>,
    blocks: bool,
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
    /// The first trouble, if none does.
    pub fn open(addresses: &[SocketAddr], timeout: Option<Duration>) -> Result<Connection, Trouble> {
        let mut trouble = None;
        for address in addresses {
            match Self::open_at(*address, timeout) {
                Ok(connection) => return Ok(connection),
                Err(error) => {
                    trouble = trouble.or_else(|| Some(Trouble::connecting(*address, &error, timeout)))
                }
            }
        }
        Err(trouble.expect("there is one address at least"))
    }

    fn open_at(peer: SocketAddr, timeout: Option<Duration>) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        let fd = socket.as_raw_fd();
        explain!("socket() = {fd}: a new TCP socket is descriptor {fd}");
        socket.set_read_timeout(timeout)?;
        socket.set_write_timeout(timeout)?;
        explain!("setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: no call is to wait for ever");
        connect(&socket, peer, timeout).inspect_err(|error| {
            explain!("connect({fd}, {peer}): {}; so the socket is closed", reason(error));
        })?;
        let local = socket.local_addr()?.as_socket().unwrap_or(peer);
        // A client whose port the kernel chooses may get the very one that it calls,
        // if nobody listens there; then TCP connects it with itself.
        if local == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        explain!(
            "connect({fd}, {peer}) = 0: connected, by the server's kernel; perhaps nobody has accepted us yet"
        );
        explain!("getsockname({fd}) = {local}: the kernel has chosen the port of our end");
        // A message goes out at once instead of waiting to be joined with the next.
        socket.set_tcp_nodelay(true)?;
        explain!("setsockopt({fd}, TCP_NODELAY) = 0: each send goes out at once");
        Ok(Connection { socket, peer, local, timeout, blocks: true, sent: 0, returned: 0 })
    }

    /// From now on send and receive return at once, and [`Connection::wait`] waits.
    ///
    /// # Errors
    /// None that can be caused.
    pub fn never_block(&mut self) -> Result<(), Trouble> {
        self.blocks = false;
        self.socket.set_nonblocking(true).map_err(|error| Trouble::broken(self, &error))?;
        explain!("fcntl({}, O_NONBLOCK) = 0: send and recv return at once", self.socket.as_raw_fd());
        Ok(())
    }

    /// Sends as much as there is room for, and says how much that was.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Trouble> {
        loop {
            match self.socket.send(bytes) {
                Ok(sent) => {
                    explain!(
                        "send({}) = {sent}: the kernel has taken so many bytes",
                        self.socket.as_raw_fd()
                    );
                    self.sent += sent as u64;
                    return Ok(sent);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // SO_SNDTIMEO has ended the wait (socket(7)).
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.blocks => {
                    return Err(Trouble::overdue(self));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(Trouble::broken(self, &error)),
            }
        }
    }

    /// Receives what has come, or the next that comes: 0 bytes are the end of file.
    /// None: nothing is there yet.
    ///
    /// # Errors
    /// If the connection is broken; one that blocks, also if nothing came in time.
    pub fn receive(&mut self, buffer: &mut [u8]) -> Result<Option<usize>, Trouble> {
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
                // We were stopped and continued (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // SO_RCVTIMEO has ended the wait.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.blocks => {
                    return Err(Trouble::overdue(self));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(Trouble::broken(self, &error)),
            }
        }
    }

    /// Waits until bytes or an end of file are there, or there is `room` for more to
    /// be sent. Bytes have been due `since` then.
    ///
    /// # Errors
    /// If nothing came in time.
    pub fn wait(&mut self, room: bool, since: Instant) -> Result<(), Trouble> {
        let events = if room { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        let mut ready = [PollFd::new(self.socket.as_fd(), events)];
        let deadline = self.deadline(since);
        match poll(&mut ready, timeout_until(deadline)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Trouble::broken(self, &error.into())),
        }
        // There may always be room, and never an answer.
        let is_answered = ready[0].revents().is_some_and(|events| !(events - PollFlags::POLLOUT).is_empty());
        match deadline {
            Some(deadline) if !is_answered && Instant::now() >= deadline => Err(Trouble::overdue(self)),
            _ => Ok(()),
        }
    }

    /// When patience ends with bytes that have been due `since` then.
    pub fn deadline(&self, since: Instant) -> Option<Instant> {
        self.timeout.map(|timeout| since + timeout)
    }

    /// Counts bytes that have come back.
    ///
    /// # Errors
    /// If they aren't the `expected` ones, which are as many.
    pub fn check(&mut self, expected: &[u8], got: &[u8]) -> Result<(), Trouble> {
        if expected == got {
            self.returned += got.len() as u64;
            return Ok(());
        }
        let at = expected.iter().zip(got).take_while(|(expected, got)| expected == got).count();
        self.returned += at as u64;
        Err(Trouble::wrong(self, expected[at], got[at]))
    }

    /// Says that we shall send no more; the server is to do the same when all has
    /// come back.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn half_close(&mut self) -> Result<(), Trouble> {
        self.socket.shutdown(Shutdown::Write).map_err(|error| Trouble::broken(self, &error))?;
        let fd = self.socket.as_raw_fd();
        explain!("shutdown({fd}, SHUT_WR) = 0: we send no more; what is on its way still comes back");
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
