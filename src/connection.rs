//! The client's end of a connection: socket, connect, send, recv, and what can
//! go wrong with each. `client` holds one, `bench` many.
//!
//! Who sends more than the buffers on the way hold must receive at the same time:
//! a server that can't get rid of its answers stops reading, and then both would
//! wait in send for ever. [`Connection::never_block`] is for that. On macOS the
//! flag MSG_DONTWAIT would not do instead: send ignores it there.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::{Shutdown, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};
use socket2::{Domain, Protocol, Socket, Type};

use crate::cli::BindAddress;
use crate::exit::{Failure, reason};
use crate::explain;
use crate::logger::count;
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

/// What has gone wrong, in a line; the connection is of no use any more.
#[derive(Debug)]
pub struct Trouble {
    /// Of which kind it is.
    pub kind: Kind,
    what: String,
}

/// The kinds of trouble that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte came back that isn't the one that was sent, or that nobody sent.
    Wrong,
    /// The server closed before all had come back.
    Lost,
    /// Nobody listens.
    Refused,
    /// The connection was reset: the server died, or wants no more of it.
    Reset,
    /// A byte, or the connection, was due for too long.
    Timeout,
    /// The system has no means, or no way there.
    Other,
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Failure {
        Failure::plain(trouble.what)
    }
}

/// All addresses of the host that the user means.
///
/// # Errors
/// If the host is unknown.
pub fn look_up(server: &BindAddress) -> Result<Vec<SocketAddr>, Failure> {
    let addresses = (server.host.as_str(), server.port).to_socket_addrs();
    addresses.map(Iterator::collect).map_err(|error| {
        Failure::new(format_args!("find the host {}", server.host), &error, "check its spelling")
    })
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
                Err(error) => trouble = trouble.or_else(|| Some(cannot_connect(*address, &error, timeout))),
            }
        }
        Err(trouble.expect("whoever is found has an address"))
    }

    fn open_at(peer: SocketAddr, timeout: Option<Duration>) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(peer), Type::STREAM, Some(Protocol::TCP))?;
        let fd = socket.as_raw_fd();
        explain!("socket() = {fd}: a new TCP socket is descriptor {fd}");
        socket.set_read_timeout(timeout)?;
        socket.set_write_timeout(timeout)?;
        connect(&socket, peer, timeout)?;
        let local = socket.local_addr()?.as_socket().unwrap_or(peer);
        // A client whose port the kernel chooses may get the very one that it calls,
        // if nobody listens there; then TCP connects it with itself.
        if local == peer {
            return Err(ErrorKind::ConnectionRefused.into());
        }
        explain!("connect({fd}, {peer}) = 0: connected; the kernel has chosen {local} for our end");
        // A message goes out at once instead of waiting to be joined with the next.
        socket.set_tcp_nodelay(true)?;
        Ok(Connection { socket, peer, local, timeout, blocks: true, sent: 0, returned: 0 })
    }

    /// From now on send and receive return at once, and [`Connection::wait`] waits.
    ///
    /// # Errors
    /// None that can be caused.
    pub fn never_block(&mut self) -> Result<(), Trouble> {
        self.blocks = false;
        self.socket.set_nonblocking(true).map_err(|error| self.broken(&error))
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
                    return Err(self.overdue());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
                Err(error) => return Err(self.broken(&error)),
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
                // Whoever was stopped and continued (signal(7)).
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // SO_RCVTIMEO has.
                Err(error) if error.kind() == ErrorKind::WouldBlock && self.blocks => {
                    return Err(self.overdue());
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(error) => return Err(self.broken(&error)),
            }
        }
    }

    /// Waits until bytes or an end of file are there, or there is `room` for more to
    /// be sent. Bytes have been due `since` then.
    ///
    /// # Errors
    /// If nothing came in time.
    pub fn wait(&mut self, room: bool, since: Instant) -> Result<(), Trouble> {
        let deadline = self.deadline(since);
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(self.overdue());
        }
        let events = if room { PollFlags::POLLIN | PollFlags::POLLOUT } else { PollFlags::POLLIN };
        match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout_until(deadline)) {
            Ok(0) => Err(self.overdue()),
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(error) => Err(self.broken(&error.into())),
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
        let name = |bytes: &[u8]| bytes.get(at).map_or("nothing".into(), |byte| name(*byte));
        let what = format!(
            "the answer is wrong at byte {}: {} was sent, and {} came back",
            self.returned + 1,
            name(expected),
            name(got)
        );
        Err(Trouble { kind: Kind::Wrong, what })
    }

    /// Says that we shall send no more; the server is to do the same when all has
    /// come back.
    ///
    /// # Errors
    /// If the connection is broken.
    pub fn half_close(&mut self) -> Result<(), Trouble> {
        self.socket.shutdown(Shutdown::Write).map_err(|error| self.broken(&error))?;
        let fd = self.socket.as_raw_fd();
        explain!("shutdown({fd}, SHUT_WR) = 0: we send no more; what is on its way still comes back");
        Ok(())
    }

    /// More came than was sent.
    pub fn too_much(&self) -> Trouble {
        let what = format!("more came back than the {} sent", count(self.sent, "byte"));
        Trouble { kind: Kind::Wrong, what }
    }

    /// The server has closed too early.
    pub fn lost(&self) -> Trouble {
        Trouble {
            kind: Kind::Lost,
            what: format!("the server closed the connection, and {}", self.missing()),
        }
    }

    /// What is due has not come for too long.
    pub fn overdue(&self) -> Trouble {
        let after = humantime::format_duration(self.timeout.unwrap_or_default());
        let what = format!("no answer within {after} (--timeout), and {}", self.missing());
        Trouble { kind: Kind::Timeout, what }
    }

    fn broken(&self, error: &io::Error) -> Trouble {
        let kind = match error.kind() {
            // The other two: the reset came before.
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected => Kind::Reset,
            ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Other,
        };
        let how = match kind {
            Kind::Reset => "the connection was reset".into(),
            _ => format!("the connection broke ({})", reason(error)),
        };
        Trouble { kind, what: format!("{how}, and {}", self.missing()) }
    }

    fn missing(&self) -> String {
        match (self.returned, self.sent) {
            (_, 0) => "nothing had been sent".into(),
            (returned, sent) if returned == sent => format!("all {} had come back", count(sent, "byte")),
            (returned, sent) => format!("byte {} of {sent} sent has not come back", returned + 1),
        }
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

fn cannot_connect(peer: SocketAddr, error: &io::Error, timeout: Option<Duration>) -> Trouble {
    let (kind, remedy) = match error.kind() {
        ErrorKind::ConnectionRefused => {
            (Kind::Refused, "nobody listens there: start a server, or give the address of one")
        }
        ErrorKind::TimedOut => (Kind::Timeout, "is its accept queue full, or the way there closed?"),
        ErrorKind::ConnectionReset => (Kind::Reset, "is the server about to end?"),
        ErrorKind::AddrNotAvailable => {
            (Kind::Other, "all ports are in use or in TIME_WAIT: open fewer connections, or wait a minute")
        }
        _ if Errno::from_raw(error.raw_os_error().unwrap_or(0)) == Errno::EMFILE => {
            (Kind::Other, "allow more by ulimit -n, or open fewer")
        }
        _ => (Kind::Other, "is the address right?"),
    };
    let reason = match (kind, timeout) {
        (Kind::Refused, _) => "connection refused".into(),
        (Kind::Timeout, Some(timeout)) => {
            format!("no answer within {}", humantime::format_duration(timeout))
        }
        _ => reason(error),
    };
    Trouble { kind, what: format!("cannot connect to {peer}: {reason}; {remedy}") }
}

/// A byte for a message: `'a' (0x61)`.
fn name(byte: u8) -> String {
    match byte.is_ascii_graphic() {
        true => format!("'{}' (0x{byte:02x})", char::from(byte)),
        false => format!("0x{byte:02x}"),
    }
}
