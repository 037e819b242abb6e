//! The service: one client's bytes back to it, to the end of file.
//!
//! It runs in a worker, but knows nothing of processes; what it needs to know of
//! one, and what one wants to know of it, goes through its [`WorkerHooks`]. Where a
//! function returns [`ControlFlow`], `Continue` says that the connection goes on,
//! and `Break` how it has ended.
//!
//! Left out on purpose: knowing when a client is "done" before its end of file.
//! Echo has no messages, so a silence is all there is to go by.

use std::fmt;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use log::debug;
use socket2::Socket;

use crate::error::strerror;
use crate::explain;
use crate::sys::socket::send_queue_len;

/// The most that one recv takes: enough that bulk data costs few calls.
pub const BUFFER_SIZE: usize = 64 * 1024;

/// What the service needs of the process that runs it.
pub trait WorkerHooks {
    /// Must the host leave? Asked before each recv, and after one that has failed.
    fn is_stopping(&self) -> bool;
    /// A signal has ended a blocking call: the moment to see what it was about.
    /// Afterwards the call is taken up again, unless the host must leave.
    fn handle_interrupt(&mut self);
    /// The next call is a recv. The moment to notice a signal: a client that
    /// never lets us block never lets us be interrupted.
    fn before_recv(&mut self);
    /// The next call is a send of so many bytes.
    fn before_send(&self, bytes: usize);
    /// It has not sent so many of them.
    fn after_send(&self, bytes: usize);
}

/// A client, connected. Dropping it closes the connection.
#[derive(Debug)]
pub struct Connection {
    /// The connection.
    pub socket: Socket,
    /// Where it comes from, unless it vanished before it was accepted.
    pub peer: Option<SocketAddr>,
    /// How long it may neither send nor take bytes; None is for ever.
    pub idle_timeout: Option<Duration>,
    /// Bytes sent back to it.
    pub echoed: u64,
    /// The system's time-out for recv (socket(7), SO_RCVTIMEO).
    recv_timeout: Option<Duration>,
}

impl Connection {
    /// A client just accepted, from a listening socket whose time-out for recv is
    /// `idle_timeout`.
    pub fn new(socket: Socket, peer: Option<SocketAddr>, idle_timeout: Option<Duration>) -> Connection {
        Connection { socket, peer, idle_timeout, echoed: 0, recv_timeout: idle_timeout }
    }

    /// Who was sent more than fits into any receive buffer may still be reading when
    /// he sends nothing. From then on recv wakes now and then to see whether he is;
    /// when the idle time-out is over, it would be too late to ask. One system call a
    /// connection.
    fn watch_if_much_was_sent(&mut self) {
        const FITS_ANY_BUFFER: u64 = 1024;
        if self.echoed > FITS_ANY_BUFFER
            && self.recv_timeout == self.idle_timeout
            && self.idle_timeout.is_some()
        {
            let look = Some(check_interval(self.idle_timeout));
            // An error is for a client that is gone, as recv will tell.
            if self.socket.set_read_timeout(look).is_ok() {
                self.recv_timeout = look;
                let fd = self.socket.as_raw_fd();
                explain!(
                    "setsockopt({fd}, SO_RCVTIMEO) = 0: recv is to look now and then whether the client reads"
                );
            }
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub enum CloseReason {
    /// The client closed its side, and everything it had sent went back.
    EndOfFile,
    /// The client neither sent nor took a byte for the idle time-out.
    Idle,
    /// The host must leave, the line was quiet, and we closed first.
    Left,
    /// The connection broke.
    Lost(io::Error),
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CloseReason::EndOfFile => f.write_str("end of file"),
            CloseReason::Idle => f.write_str("idle for too long"),
            CloseReason::Left => f.write_str("quiet, and this worker is leaving"),
            CloseReason::Lost(error) => write!(f, "lost, {}", strerror(error)),
        }
    }
}

/// Echoes what the client sends until the host must leave. The bytes are those that
/// were received by then, and found no room on their way back.
pub fn echo<'a>(
    client: &mut Connection,
    buffer: &'a mut [u8],
    host: &mut impl WorkerHooks,
) -> ControlFlow<CloseReason, &'a [u8]> {
    while !host.is_stopping() {
        host.before_recv();
        let length = match receive(client, buffer, host)? {
            None => break,
            Some(0) => return Break(CloseReason::EndOfFile),
            Some(length) => length,
        };
        let left = send_all(client, &buffer[..length], host)?;
        if left > 0 {
            return Continue(&buffer[length - left..length]);
        }
    }
    Continue(&[])
}

/// Blocks until bytes come, 0 being the end of file. None: the host must leave.
fn receive(
    client: &mut Connection,
    buffer: &mut [u8],
    host: &mut impl WorkerHooks,
) -> ControlFlow<CloseReason, Option<usize>> {
    let fd = client.socket.as_raw_fd();
    client.watch_if_much_was_sent();
    explain!("recv({fd}): asleep until the client sends");
    // The system's time-out starts anew after an interruption, so the waits are
    // added up, from the first one on: when none interrupts recv, no clock is read.
    let mut since = None;
    // A client that sends nothing may be taking what it was sent before.
    let mut queued_before = None;
    loop {
        let timed_out = match client.socket.read(buffer) {
            Ok(0) => {
                explain!("recv({fd}) = 0: end of file, the client sends no more");
                return Continue(Some(0));
            }
            Ok(length) => {
                explain!("recv({fd}) = {length}: so many bytes have come");
                return Continue(Some(length));
            }
            // SO_RCVTIMEO has ended the wait (socket(7)).
            Err(error) if error.kind() == ErrorKind::WouldBlock => true,
            Err(error) => {
                is_retryable(error, host)?;
                false
            }
        };
        if host.is_stopping() {
            explain!("recv({fd}) = EINTR: a signal says that we must leave");
            return Continue(None);
        }
        let now = Instant::now();
        let slept = client.recv_timeout.filter(|_| timed_out).unwrap_or_default();
        let waited = now - *since.get_or_insert(now.checked_sub(slept).unwrap_or(now));
        let unsent = send_queue_len(&client.socket).unwrap_or(0);
        let may_be_taking = queued_before.replace(unsent).map_or(unsent > 0, |before| unsent < before);
        if may_be_taking {
            since = Some(now);
        } else if client.idle_timeout.is_some_and(|limit| waited >= limit) {
            return Break(CloseReason::Idle);
        }
    }
}

/// One send, of which the host knows. It may take a part.
pub fn send(client: &mut Connection, bytes: &[u8], host: &impl WorkerHooks) -> io::Result<usize> {
    host.before_send(bytes.len());
    let result = client.socket.send(bytes);
    let sent = *result.as_ref().unwrap_or(&0);
    host.after_send(bytes.len() - sent);
    client.echoed += sent as u64;
    if sent > 0 {
        explain!("send({}) = {sent}: so many bytes are on their way back", client.socket.as_raw_fd());
    }
    result
}

/// How often a call that waits looks whether the client takes anything: it may be
/// slow, and take what was sent before without room for more.
pub fn check_interval(idle_timeout: Option<Duration>) -> Duration {
    (idle_timeout.unwrap_or(Duration::MAX) / 4).clamp(Duration::from_millis(1), Duration::from_millis(250))
}

/// Blocks until the kernel has taken all of it: send may take a part. If the host
/// must leave meanwhile, so many bytes are left.
fn send_all(
    client: &mut Connection,
    mut bytes: &[u8],
    host: &mut impl WorkerHooks,
) -> ControlFlow<CloseReason, usize> {
    let length = bytes.len();
    // Since when, as far as we have looked, the client has taken nothing.
    let mut stall: Option<(usize, Instant)> = None;
    while !bytes.is_empty() {
        match send(client, bytes, host) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                stall = None;
            }
            Err(error) => {
                if error.kind() != ErrorKind::WouldBlock {
                    is_retryable(error, host)?;
                }
                if host.is_stopping() {
                    return Continue(bytes.len());
                }
                let unsent = send_queue_len(&client.socket).unwrap_or(0);
                explain!(
                    "send({}): {} bytes find no room, and {unsent} wait to be taken; asleep until the client \
                     reads",
                    client.socket.as_raw_fd(),
                    bytes.len()
                );
                match stall {
                    Some((before, since)) if unsent >= before => {
                        if client.idle_timeout.is_some_and(|limit| since.elapsed() >= limit) {
                            return Break(CloseReason::Idle);
                        }
                    }
                    _ => stall = Some((unsent, Instant::now())),
                }
            }
        }
    }
    debug!("echoed {length} bytes");
    Continue(0)
}

fn is_retryable(error: io::Error, host: &mut impl WorkerHooks) -> ControlFlow<CloseReason> {
    match error.kind() {
        ErrorKind::Interrupted => {
            host.handle_interrupt();
            Continue(())
        }
        _ => Break(CloseReason::Lost(error)),
    }
}
