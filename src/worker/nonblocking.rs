//! A connection that never blocks, one of many in a [`ConnectionSet`](super::connection_set): what
//! it does when it is ready, or when a check of its peer is due.
//!
//! Bytes go back from the worker's one buffer. Only those that find no room are kept, in
//! memory of the connection's own, and no more are received before they are sent.

use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use log::debug;

use super::linger::LingerTimeouts;
use crate::echo::progress::{Progress, coarse_check_interval};
use crate::echo::{self, CloseReason, Connection, WorkerHooks, check_interval, check_retryable};
use crate::log::narrate::worker as narrate;
use crate::sys::poller::Interest;

/// A connection that never blocks.
#[derive(Debug)]
pub(super) struct NonblockingConnection {
    connection: Connection,
    is_half_closed: bool,
    /// Bytes received, and not yet sent back.
    unsent: Vec<u8>,
    progress: Progress,
}

impl NonblockingConnection {
    /// A connection with bytes `unsent`, which were received and not yet sent back.
    pub fn new(mut connection: Connection, unsent: &[u8]) -> NonblockingConnection {
        connection.never_block();
        let progress = Progress::new(connection.idle_timeout);
        NonblockingConnection { connection, is_half_closed: false, unsent: unsent.to_vec(), progress }
    }

    /// What the connection waits for: bytes, or room to send the rest.
    pub fn interest(&self) -> Interest {
        if self.unsent.is_empty() { Interest::Bytes } else { Interest::Room }
    }

    /// When [`NonblockingConnection::advance`] has something to do although the connection is
    /// not ready.
    pub fn next_check(&self) -> Option<Instant> {
        self.progress.next_check()
    }

    /// The number of its descriptor.
    pub fn fd(&self) -> RawFd {
        self.connection.fd()
    }

    /// The connection, to be closed.
    pub fn into_connection(self) -> Connection {
        self.connection
    }

    /// Serves the connection once, if it is ready, and does what is due. Never blocks.
    /// `leaving`: the worker is; None: it serves.
    ///
    /// # Errors
    /// The connection has ended, and is to be closed.
    pub fn advance(
        &mut self,
        is_ready: bool,
        leaving: Option<LingerTimeouts>,
        buffer: &mut [u8],
        hooks: &mut impl WorkerHooks,
    ) -> Result<(), CloseReason> {
        if is_ready && self.serve(buffer, hooks)? {
            self.touch(leaving);
            return Ok(());
        }
        let now = Instant::now();
        if self.next_check().is_none_or(|due| now < due) {
            return Ok(());
        }
        self.progress.check(self.connection.queued(), Duration::ZERO, now);
        self.progress.idle_timeout = self.time_limit(leaving);
        if !self.progress.is_idle(now) {
            return Ok(());
        }
        // Bytes may have come since the wait, or a signal has ended it.
        if !is_ready && self.unsent.is_empty() && self.serve(buffer, hooks)? {
            self.touch(leaving);
            return Ok(());
        }
        self.time_is_over(leaving)
    }

    /// Notes that the peer has made progress, or that a new wait begins.
    pub fn touch(&mut self, leaving: Option<LingerTimeouts>) {
        // While serving, the send queue is measured only at the checks: it costs a call.
        let queued = match leaving {
            Some(_) => Some(self.connection.queued()),
            None if self.unsent.is_empty() && !self.connection.may_be_reading() => Some(0),
            None => None,
        };
        let idle_timeout = self.connection.idle_timeout;
        self.progress.interval = match leaving {
            Some(_) => check_interval(idle_timeout),
            None => coarse_check_interval(idle_timeout),
        };
        self.progress.made(queued, Instant::now());
        self.progress.idle_timeout = self.time_limit(leaving);
    }

    /// How long to wait for progress.
    fn time_limit(&self, leaving: Option<LingerTimeouts>) -> Option<Duration> {
        match leaving {
            None => self.connection.idle_timeout,
            Some(timeouts) if self.is_half_closed => Some(timeouts.quiet),
            Some(_) if !self.unsent.is_empty() => self.connection.idle_timeout,
            Some(timeouts) if self.progress.queued() > 0 => Some(timeouts.taking),
            Some(timeouts) if self.connection.echoed == 0 => Some(timeouts.first),
            Some(timeouts) => Some(timeouts.quiet),
        }
    }

    /// There was no progress within the time limit. A worker that leaves half-closes the
    /// connection first, and closes it at the second time.
    fn time_is_over(&mut self, leaving: Option<LingerTimeouts>) -> Result<(), CloseReason> {
        let Some(timeouts) = leaving.filter(|_| self.unsent.is_empty()) else {
            return Err(CloseReason::Idle);
        };
        if self.is_half_closed {
            narrate::closes_first(timeouts.quiet);
            return Err(CloseReason::Left);
        }
        self.is_half_closed = true;
        self.connection.socket.shutdown(Shutdown::Write).map_err(CloseReason::Lost)?;
        narrate::half_closed(self.fd());
        // Not measured anew: the end of file is in the queue, and is no byte to take.
        self.progress.made(Some(self.progress.queued()), Instant::now());
        self.progress.idle_timeout = self.time_limit(leaving);
        Ok(())
    }

    /// Makes the calls that the connection is ready for. Returns whether they were progress:
    /// after the half-close bytes are read, but are too late to be echoed.
    fn serve(&mut self, buffer: &mut [u8], hooks: &mut impl WorkerHooks) -> Result<bool, CloseReason> {
        if !self.unsent.is_empty() {
            return self.send_rest(hooks).map(|()| true);
        }
        let (fd, received) = (self.fd(), self.connection.recv(buffer));
        let length = match received {
            Ok(0) if self.is_half_closed => {
                narrate::end_of_file_answered(fd);
                return Err(CloseReason::Left);
            }
            Ok(_) if self.is_half_closed => return Ok(false),
            Ok(length) => length,
            Err(error) => return check_retryable(error, hooks).map(|()| false),
        };
        narrate::received(fd, length);
        // A whole header is progress, a piece of one is not.
        let Some(length) = echo::take_header(&mut self.connection, buffer, length, hooks)? else {
            return Ok(!self.connection.awaits_header());
        };
        if length == 0 {
            return Err(CloseReason::EndOfFile);
        }
        hooks.before_answer(&self.connection);
        let sent = self.send(&buffer[..length], hooks)?;
        if sent < length {
            self.unsent = buffer[sent..length].to_vec();
        }
        Ok(true)
    }

    fn send_rest(&mut self, hooks: &mut impl WorkerHooks) -> Result<(), CloseReason> {
        let mut unsent = std::mem::take(&mut self.unsent);
        let sent = self.send(&unsent, hooks)?;
        // With the last byte sent, the memory is given back.
        if sent < unsent.len() {
            unsent.drain(..sent);
            self.unsent = unsent;
        }
        Ok(())
    }

    /// Sends what there is room for. Returns how much that is.
    fn send(&mut self, bytes: &[u8], hooks: &mut impl WorkerHooks) -> Result<usize, CloseReason> {
        match echo::send(&mut self.connection, bytes, hooks) {
            Ok(sent) => {
                debug!("echoed {sent} bytes");
                Ok(sent)
            }
            Err(error) => check_retryable(error, hooks).map(|()| 0),
        }
    }
}

impl AsFd for NonblockingConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.connection.socket.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

    use super::*;

    struct NoWorker;

    impl WorkerHooks for NoWorker {
        fn is_stopping(&self) -> bool {
            false
        }
        fn handle_interrupt(&mut self) {}
        fn before_recv(&mut self) {}
        fn before_answer(&mut self, _: &Connection) {}
        fn before_send(&self, _: usize) {}
        fn after_send(&self, _: usize) {}
    }

    #[test]
    fn bytes_that_find_no_room_again_and_again_keep_their_order() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Small buffers, and segments that fit into them.
        let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        client.set_tcp_mss(536).and_then(|()| client.set_recv_buffer_size(4096)).unwrap();
        client.connect(&listener.local_addr().unwrap().into()).unwrap();
        client.set_nonblocking(true).unwrap();
        let mut client = TcpStream::from(client);
        let socket = Socket::from(listener.accept().unwrap().0);
        socket.set_send_buffer_size(4096).unwrap();
        let mut connection = NonblockingConnection::new(Connection::new(socket, None, None), &[]);
        let message: Vec<u8> = (0..200_000_u32).map(|number| (number % 251) as u8).collect();
        let (mut sent, mut answer, mut buffer) = (0, Vec::new(), vec![0; echo::BUFFER_SIZE]);
        let mut partial_sends = 0;
        while answer.len() < message.len() {
            sent += client.write(&message[sent..]).unwrap_or(0);
            let before = connection.unsent.len();
            connection.advance(true, None, &mut buffer, &mut NoWorker).unwrap();
            let left = connection.unsent.len();
            partial_sends += u32::from(0 < left && left < before);
            match client.read(&mut buffer) {
                Ok(length) => answer.extend_from_slice(&buffer[..length]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
        }
        assert!(answer == message, "what came back differs");
        assert!(partial_sends > 0, "each time all of the rest found room");
    }
}
