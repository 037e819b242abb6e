//! The service: one client, its bytes back, to the end of file.
//!
//! It runs in a worker, knows nothing of processes, and asks its [`Host`] for
//! the two things it needs from one: whether to come to an end, and what to do
//! when a signal has interrupted a call.
//!
//! Left out on purpose: knowing when a client is "done" before its end of file.
//! Echo has no messages, so a silence is all there is to go by.

use std::convert::Infallible;
use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use log::debug;
use nix::errno::Errno;
use socket2::Socket;

use crate::exit::reason;
use crate::explain;
use crate::sys::socket::readable_within;

/// The most that one recv takes: enough that bulk data costs few calls.
pub const BUFFER_SIZE: usize = 64 * 1024;

/// What the service needs of the process that runs it.
pub trait Host {
    /// Asked before each recv: shall this client be brought to an end?
    fn must_leave(&self) -> bool;
    /// When leaving: a client that has sent nothing for so long has nothing on
    /// its way, and it may take as long to answer our end of file with its own.
    fn patience(&self) -> Duration;
    /// A signal ended a blocking call, which is taken up again afterwards.
    fn interrupted(&mut self);
    /// The next call is a recv.
    fn receiving(&self);
    /// The next call is a send.
    fn sending(&self);
    /// So many bytes went back to the client.
    fn sent(&self, bytes: usize);
}

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// The client closed its side, and everything it had sent went back.
    EndOfFile,
    /// The client neither sent nor took a byte for the idle time-out.
    Idle,
    /// The host must leave: the line was quiet, and we closed first.
    Drained,
    /// The connection broke.
    Lost(io::Error),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            End::EndOfFile => f.write_str("end of file"),
            End::Idle => f.write_str("idle for too long"),
            End::Drained => f.write_str("quiet while we leave"),
            End::Lost(error) => write!(f, "lost, {}", reason(error)),
        }
    }
}

/// Serves `client` until its end, or until the host must leave.
pub fn serve(client: &Socket, buffer: &mut [u8], host: &mut impl Host) -> End {
    let mut service = Service { client, buffer, host };
    let Err(end) = service.echo().and_then(|()| service.finish());
    end
}

/// "It goes on" is `Ok`; the end of the connection leaves by `?`.
type Step<T> = Result<T, End>;

struct Service<'a, H> {
    client: &'a Socket,
    buffer: &'a mut [u8],
    host: &'a mut H,
}

impl<H: Host> Service<'_, H> {
    /// Echoes until the host must leave.
    fn echo(&mut self) -> Step<()> {
        while !self.host.must_leave() {
            self.echo_once()?;
        }
        Ok(())
    }

    /// Comes to an end without a loss. Closing with bytes unread would send a
    /// reset, which destroys the bytes that are on their way to the client
    /// (RFC 1122, 4.2.2.13). So: echo until the line is quiet, say that no more
    /// comes, and read on until the client has said the same.
    fn finish(&mut self) -> Step<Infallible> {
        while self.readable_within(self.host.patience())? {
            self.echo_once()?;
        }
        self.client.shutdown(Shutdown::Write).map_err(End::Lost)?;
        explain!("shutdown({}, SHUT_WR): the client has been quiet; it now reads an end of file", self.fd());
        let until = Instant::now() + self.host.patience();
        while self.readable_within(until.saturating_duration_since(Instant::now()))? {
            if self.receive()? == Some(0) {
                break;
            }
        }
        Err(End::Drained)
    }

    /// One recv, and its bytes back.
    fn echo_once(&mut self) -> Step<()> {
        self.host.receiving();
        match self.receive()? {
            None => Ok(()),
            Some(0) => Err(End::EndOfFile),
            Some(received) => {
                self.host.sending();
                self.send_all(received)
            }
        }
    }

    /// Blocks until bytes come, 0 being the end of file. None: interrupted.
    fn receive(&mut self) -> Step<Option<usize>> {
        match self.client.read(self.buffer) {
            Ok(received) => {
                match received {
                    0 => explain!("recv({}) = 0: end of file, the client sends no more", self.fd()),
                    _ => explain!("recv({}) = {received} bytes", self.fd()),
                }
                Ok(Some(received))
            }
            Err(error) => self.may_go_on(error).map(|()| None),
        }
    }

    /// Blocks until the kernel has taken all of it: send may take a part.
    fn send_all(&mut self, length: usize) -> Step<()> {
        let mut sent = 0;
        while sent < length {
            match self.client.send(&self.buffer[sent..length]) {
                Ok(taken) => {
                    explain!("send({}) = {taken} bytes", self.fd());
                    sent += taken;
                    self.host.sent(taken);
                }
                Err(error) => self.may_go_on(error)?,
            }
        }
        debug!("echoed {length} bytes");
        Ok(())
    }

    fn may_go_on(&mut self, error: io::Error) -> Step<()> {
        match error.kind() {
            ErrorKind::Interrupted => {
                self.host.interrupted();
                Ok(())
            }
            // SO_RCVTIMEO or SO_SNDTIMEO has ended the wait (socket(7)).
            ErrorKind::WouldBlock => Err(End::Idle),
            _ => Err(End::Lost(error)),
        }
    }

    /// Waits until there are bytes, or an end of file, to read.
    fn readable_within(&mut self, limit: Duration) -> Step<bool> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match readable_within(self.client, left) {
                Ok(readable) => return Ok(readable),
                Err(Errno::EINTR) => self.host.interrupted(),
                Err(error) => return Err(End::Lost(error.into())),
            }
        }
    }

    fn fd(&self) -> i32 {
        self.client.as_raw_fd()
    }
}
