//! A connection that is being made by a thread that drives others meanwhile: connect(2)
//! returns at once, and when the kernel has the answer, there is room to send.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use socket2::Socket;

use crate::client::stream::{Limit, time_left};
use crate::client::{ClientError, Stream};
use crate::sys::readiness::wait_for;

/// The attempt to connect.
#[derive(Debug)]
pub(super) struct Connecting {
    socket: Socket,
    peer: SocketAddr,
    timeout: Option<Duration>,
    limit: Option<Limit>,
    /// The longest wait for the connection.
    longest: Option<Duration>,
    /// When that ends.
    pub(super) deadline: Option<Instant>,
}

/// How far the attempt is.
pub(super) enum Progress {
    Pending(Connecting),
    Connected(Stream),
}

impl Connecting {
    /// Asks the kernel for a connection, as [`Stream::open`] does.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub(super) fn start(
        peer: SocketAddr,
        timeout: Option<Duration>,
        limit: Option<Limit>,
    ) -> Result<Connecting, ClientError> {
        let longest = limit.map(|limit| time_left(limit.deadline())).into_iter().chain(timeout).min();
        let call = || {
            let socket = Stream::socket(peer, None, None)?;
            socket.set_nonblocking(true)?;
            match socket.connect(&peer.into()) {
                // After a signal the kernel goes on as well.
                Err(error) if is(&error, Errno::EINPROGRESS) || is(&error, Errno::EINTR) => Ok(socket),
                result => result.map(|()| socket),
            }
        };
        let socket = call().map_err(|error| ClientError::connecting(peer, &error, longest))?;
        let deadline = longest.map(|longest| Instant::now() + longest);
        Ok(Connecting { socket, peer, timeout, limit, longest, deadline })
    }

    /// Looks whether the kernel has the answer.
    ///
    /// # Errors
    /// As [`Stream::open`].
    pub(super) fn advance(self) -> Result<Progress, ClientError> {
        let is_overdue = self.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let failed = match wait_for(&self.socket, PollFlags::POLLOUT, Some(Instant::now())) {
            Ok(false) | Err(Errno::EINTR) if !is_overdue => return Ok(Progress::Pending(self)),
            Ok(false) | Err(Errno::EINTR) => Some(ErrorKind::TimedOut.into()),
            Ok(true) => self.socket.take_error().unwrap_or_else(Some),
            Err(error) => Some(error.into()),
        };
        let Connecting { socket, peer, timeout, limit, longest, .. } = self;
        let connected = match failed {
            Some(error) => Err(error),
            None => Stream::connected(socket, peer, timeout, limit),
        };
        let mut stream = connected.map_err(|error| ClientError::connecting(peer, &error, longest))?;
        stream.blocks = false;
        Ok(Progress::Connected(stream))
    }
}

impl AsFd for Connecting {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn is(error: &std::io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
