//! An accepted connection, and how connections end.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use nix::sys::socket::{self, MsgFlags};
use socket2::Socket;

use super::progress::check_interval;
use super::proxy_header::NoHeader;
use crate::error::strerror;
use crate::log::narrate::worker as narrate;
use crate::sys::socket::{SEND_HEEDS_DONTWAIT, send_queue_len};

/// A connection to a peer. Dropping it closes it.
#[derive(Debug)]
pub struct Connection {
    /// The socket of this connection alone.
    pub socket: Socket,
    /// The peer's address.
    pub peer: Peer,
    /// The peer may neither send nor take bytes for so long; None is for ever.
    pub idle_timeout: Option<Duration>,
    /// Bytes sent back to the peer.
    pub echoed: u64,
    /// The system's time-out for recv (socket(7), SO_RCVTIMEO).
    pub(super) recv_timeout: Option<Duration>,
    /// Of recv and send: none, or MSG_DONTWAIT.
    flags: MsgFlags,
    /// What has come of the PROXY header; None: no header is awaited, or it has come.
    pub(super) header_begun: Option<Vec<u8>>,
}

/// A peer that was sent no more than this cannot be reading it still: it fits into any
/// receive buffer.
const FITS_ANY_BUFFER: u64 = 1024;

impl Connection {
    /// A connection just accepted, from a listening socket whose time-out for recv is
    /// `idle_timeout`. Without `peer` the peer vanished before it was accepted.
    pub fn new(socket: Socket, peer: Option<SocketAddr>, idle_timeout: Option<Duration>) -> Connection {
        Connection {
            socket,
            peer: Peer { address: peer, via: None },
            idle_timeout,
            echoed: 0,
            recv_timeout: idle_timeout,
            flags: MsgFlags::empty(),
            header_begun: None,
        }
    }

    /// The connection is to begin with a PROXY header, which is not echoed.
    pub fn expect_header(&mut self) {
        self.header_begun = Some(Vec::new());
    }

    /// Is the PROXY header still to come, or a part of it?
    pub fn awaits_header(&self) -> bool {
        self.header_begun.is_some()
    }

    /// From now on no call blocks: recv and send fail with `WouldBlock` instead. Where it can
    /// be, it is a flag of each call (recv(2), MSG_DONTWAIT), so it costs no call of its own.
    pub fn never_block(&mut self) {
        self.flags = MsgFlags::MSG_DONTWAIT;
        if !SEND_HEEDS_DONTWAIT {
            // It is this connection's flag alone: the listening socket has its own. If the
            // connection is broken this fails, and recv will say so.
            let _ = self.socket.set_nonblocking(true);
        }
    }

    /// Receives bytes; 0 is the end of file.
    ///
    /// # Errors
    /// Those of recv(2).
    pub fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(socket::recv(self.fd(), buffer, self.flags)?)
    }

    /// Sends bytes, all or a part of them.
    ///
    /// # Errors
    /// Those of send(2).
    pub(super) fn send(&self, bytes: &[u8]) -> io::Result<usize> {
        Ok(socket::send(self.fd(), bytes, self.flags)?)
    }

    /// The number of its descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// How many bytes were sent that the peer's TCP has not taken.
    pub fn queued(&self) -> usize {
        send_queue_len(&self.socket).unwrap_or(0)
    }

    /// May the peer still be reading what it was sent?
    pub fn may_be_reading(&self) -> bool {
        self.echoed > FITS_ANY_BUFFER
    }

    /// If the peer may still be reading, recv wakes now and then to measure the send queue.
    pub(super) fn watch_if_much_was_sent(&mut self) {
        if self.may_be_reading() {
            self.watch();
        }
    }

    /// From now on recv wakes now and then, to see whether the peer is idle. It costs one system
    /// call a connection.
    pub(super) fn watch(&mut self) {
        if self.idle_timeout.is_some() && self.recv_timeout == self.idle_timeout {
            let interval = Some(check_interval(self.idle_timeout));
            // If the connection is broken this fails, and recv will say so.
            if self.socket.set_read_timeout(interval).is_ok() {
                self.recv_timeout = interval;
                narrate::recv_watches(self.fd());
            }
        }
    }
}

/// The peer, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// The client's address: that of the other end, or what a PROXY header says.
    pub address: Option<SocketAddr>,
    /// The balancer's address, if a PROXY header names another one as the client's.
    pub via: Option<SocketAddr>,
}

impl Peer {
    /// The other end is a balancer, and speaks for this client; None: for itself.
    pub(super) fn speaks_for(&mut self, client: Option<SocketAddr>) {
        if client.is_some() {
            *self = Peer { address: client, via: self.address };
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f)?,
            None => f.write_str("a client that has vanished")?,
        }
        self.via.map_or(Ok(()), |via| write!(f, " via {via}"))
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// The peer closed its side, and everything that it had sent went back.
    EndOfFile,
    /// The peer neither sent nor took a byte for the idle time-out.
    Idle,
    /// The worker is stopping, the connection was quiet, and the worker closed first.
    Left,
    /// The connection broke.
    Lost(io::Error),
    /// The connection does not begin with a PROXY header.
    NoHeader(NoHeader),
}

impl CloseReason {
    /// The same; or, if the connection still awaits its PROXY header, what it means for that.
    pub(crate) fn or_no_header(self, connection: &Connection) -> CloseReason {
        let Some(begun) = &connection.header_begun else { return self };
        CloseReason::NoHeader(match self {
            CloseReason::Idle => NoHeader::Overdue,
            CloseReason::EndOfFile if begun.is_empty() => NoHeader::Closed,
            CloseReason::EndOfFile | CloseReason::Lost(_) if !begun.is_empty() => NoHeader::Cut,
            other => return other,
        })
    }

    /// Is it a fault of the peer's? The end of a probe is none.
    pub fn is_fault(&self) -> bool {
        matches!(self, CloseReason::NoHeader(reason) if *reason != NoHeader::Closed)
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::EndOfFile => f.write_str("end of file"),
            CloseReason::Idle => f.write_str("idle for too long"),
            CloseReason::Left => f.write_str("quiet, and this worker is leaving"),
            CloseReason::Lost(error) => write!(f, "lost, {}", strerror(error)),
            CloseReason::NoHeader(reason) => reason.fmt(f),
        }
    }
}
