//! The service: the bytes of one connection go back to its peer, to the end of file.
//!
//! It runs in a worker and knows no process: it calls its worker only through
//! [`WorkerHooks`]. In the order of events:
//! `connection` (accepted; how it ended), this file (recv, send), `proxy_header` (what stands
//! before the first bytes, behind a balancer), `splice` (much at once, on Linux; both may be
//! skipped), `progress` (whether the peer is idle). Where a function returns a
//! [`CloseReason`] as its error, the connection has ended and is to be closed.
//!
//! Left out on purpose: knowing when a peer is "done" before its end of file. Echo has no
//! messages, so a silence is all there is to go by.

mod connection;
pub(crate) mod progress;
mod proxy_header;
mod splice;

use std::io::{self, ErrorKind};
use std::time::{Duration, Instant};

use log::debug;

pub use self::connection::{CloseReason, Connection, Peer};
use self::progress::Progress;
pub use self::progress::check_interval;
pub use self::proxy_header::NoHeader;
pub(crate) use self::proxy_header::take_header;
use self::splice::Bulk;
use crate::log::narrate::worker as narrate;
use crate::sys::splice::Pipe;

/// The most that one recv takes: enough that bulk data costs few calls. With a quarter of it a
/// megabyte in bulk costs a third more (docs/measurements.md), and pages that no byte has come
/// to cost nothing.
pub const BUFFER_SIZE: usize = 256 * 1024;

/// What the service calls in the worker that runs it.
pub trait WorkerHooks {
    /// Is the worker stopping? Called before each recv, and after a call that was
    /// interrupted or timed out.
    fn is_stopping(&self) -> bool;
    /// Called when a signal has interrupted a blocking call. The call is repeated
    /// afterwards, unless the worker is stopping.
    fn handle_interrupt(&mut self);
    /// Called before recv, once for each answer. The worker looks for signals here, because a
    /// peer that never lets a call block never lets one be interrupted.
    fn before_recv(&mut self);
    /// Called when bytes have come, before the first send of the answer to them.
    fn before_answer(&mut self, connection: &Connection);
    /// Called before each send of so many bytes.
    fn before_send(&self, bytes: usize);
    /// Called after each send, with the number of bytes that were not sent.
    fn after_send(&self, unsent: usize);
    /// Called when the PROXY header has come: the peer's address is known.
    fn after_header(&mut self, _connection: &Connection) {}
    /// A pipe for bulk, with room for so many bytes; None if there is to be none.
    fn bulk_pipe(&self, _bytes: usize) -> Option<Pipe> {
        None
    }
}

/// Echoes what the peer sends until the worker is stopping. Returns the bytes that were
/// received by then and not yet sent back.
///
/// # Errors
/// The connection has ended.
pub fn echo<'a>(
    connection: &mut Connection,
    buffer: &'a mut [u8],
    hooks: &mut impl WorkerHooks,
) -> Result<&'a [u8], CloseReason> {
    let mut bulk = Bulk::default();
    while !hooks.is_stopping() {
        hooks.before_recv();
        let length = match receive(connection, buffer, hooks)? {
            None => break,
            Some(0) => return Err(CloseReason::EndOfFile),
            Some(length) => length,
        };
        hooks.before_answer(connection);
        let left = send_all(connection, &buffer[..length], hooks)?;
        if left > 0 {
            return Ok(&buffer[length - left..length]);
        }
        if bulk.begins(length, buffer.len()) {
            let left = bulk.echo(connection, buffer, hooks)?;
            if left > 0 {
                return Ok(&buffer[..left]);
            }
        }
    }
    Ok(&[])
}

/// Blocks until bytes come; 0 is the end of file. None: the worker is stopping.
fn receive(
    connection: &mut Connection,
    buffer: &mut [u8],
    hooks: &mut impl WorkerHooks,
) -> Result<Option<usize>, CloseReason> {
    connection.watch_if_much_was_sent();
    narrate::recv_blocks(connection.fd());
    let mut progress = Progress::new(connection.idle_timeout);
    if connection.awaits_header() {
        progress.made(Some(0), Instant::now()); // Pieces of it are no progress.
    }
    loop {
        match connection.recv(buffer) {
            Ok(length) => {
                narrate::received(connection.fd(), length);
                if let Some(length) = take_header(connection, buffer, length, hooks)? {
                    return Ok(Some(length));
                }
                if connection.awaits_header() {
                    connection.watch();
                    check_idle(connection, &mut progress, Duration::ZERO)?;
                } else {
                    progress = Progress::new(connection.idle_timeout);
                }
            }
            Err(error) => check_recv_error(connection, error, &mut progress, hooks)?,
        }
        if hooks.is_stopping() {
            narrate::recv_interrupted(connection.fd());
            return Ok(None);
        }
    }
}

/// Blocks until the kernel has taken all bytes, because send may take a part. Returns how
/// many are left when the worker is stopping.
fn send_all(
    connection: &mut Connection,
    mut bytes: &[u8],
    hooks: &mut impl WorkerHooks,
) -> Result<usize, CloseReason> {
    let length = bytes.len();
    let mut progress = Progress::new(connection.idle_timeout);
    while !bytes.is_empty() {
        match send(connection, bytes, hooks) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                progress = Progress::new(connection.idle_timeout);
            }
            Err(error) => {
                check_retryable(error, hooks)?;
                if hooks.is_stopping() {
                    return Ok(bytes.len());
                }
                narrate::send_blocks(&connection.socket, bytes.len());
                check_idle(connection, &mut progress, Duration::ZERO)?;
            }
        }
    }
    debug!("echoed {length} bytes");
    Ok(0)
}

/// Makes one send, which may take a part of the bytes.
///
/// # Errors
/// Those of send(2).
pub fn send(connection: &mut Connection, bytes: &[u8], hooks: &impl WorkerHooks) -> io::Result<usize> {
    let result = count_sent(connection, bytes.len(), hooks, |connection| connection.send(bytes));
    if let Ok(sent @ 1..) = result {
        narrate::sent(connection.fd(), sent);
    }
    result
}

/// Makes a call that sends up to `length` bytes, and counts those that it sends.
fn count_sent(
    connection: &mut Connection,
    length: usize,
    hooks: &impl WorkerHooks,
    call: impl FnOnce(&Connection) -> io::Result<usize>,
) -> io::Result<usize> {
    hooks.before_send(length);
    let result = call(connection);
    let sent = *result.as_ref().unwrap_or(&0);
    hooks.after_send(length - sent);
    connection.echoed += sent as u64;
    result
}

/// Ends the connection if an error of a call that receives did, or if its peer is idle.
fn check_recv_error(
    connection: &Connection,
    error: io::Error,
    progress: &mut Progress,
    hooks: &mut impl WorkerHooks,
) -> Result<(), CloseReason> {
    // A wait that SO_RCVTIMEO has ended (socket(7)) has lasted for that time-out.
    let has_timed_out = error.kind() == ErrorKind::WouldBlock;
    check_retryable(error, hooks)?;
    let waited = connection.recv_timeout.filter(|_| has_timed_out).unwrap_or_default();
    if hooks.is_stopping() { Ok(()) } else { check_idle(connection, progress, waited) }
}

/// Ends the connection if the error did. A signal, a time-out and a socket without bytes or
/// room (where it doesn't block) did not: the call may be repeated.
pub(crate) fn check_retryable(error: io::Error, hooks: &mut impl WorkerHooks) -> Result<(), CloseReason> {
    match error.kind() {
        ErrorKind::WouldBlock => Ok(()),
        ErrorKind::Interrupted => {
            hooks.handle_interrupt();
            Ok(())
        }
        _ => Err(CloseReason::Lost(error)),
    }
}

/// Ends the connection if its peer is idle. `waited`: see [`Progress::check`].
fn check_idle(connection: &Connection, progress: &mut Progress, waited: Duration) -> Result<(), CloseReason> {
    let now = Instant::now();
    progress.check(connection.queued(), waited, now);
    if progress.is_idle(now) { Err(CloseReason::Idle) } else { Ok(()) }
}
