//! Bulk on Linux: bytes that come without a pause go from the socket to a pipe, and from the
//! pipe to the socket (splice(2)). They never enter this process, so nothing copies them.
//!
//! Two receives in a row that have filled half the buffer begin it. One that brings little
//! ends it: splice costs more than recv and send there. Time-outs, counts and signals are as
//! with the buffer. The end of file is left to recv, because splice also returns 0 before an
//! urgent byte. With `--explain` there is no pipe: it shows the loop of recv and send.

use std::time::Duration;

use log::debug;

use super::progress::Progress;
use super::{
    CloseReason, Connection, WorkerHooks, check_idle, check_recv_error, check_retryable, count_sent,
};
use crate::sys::splice::{Pipe, is_unsupported};

/// A receive that fills less than this part of the buffer ends it.
const LITTLE: usize = 8;

/// What is known of the bulk of one connection.
#[derive(Debug, Default)]
pub(super) struct Bulk {
    /// Receives in a row that have filled half the buffer.
    well_filled: u32,
    /// Made for the first bulk, and kept for the next one.
    pipe: Option<Pipe>,
    /// There is no pipe to be had, or no splice.
    is_lacking: bool,
}

impl Bulk {
    /// Notes a receive of so many bytes. Does bulk begin?
    pub fn begins(&mut self, received: usize, buffer_size: usize) -> bool {
        self.well_filled = if received >= buffer_size / 2 { self.well_filled + 1 } else { 0 };
        self.well_filled >= 2 && !self.is_lacking
    }

    /// Echoes until little comes, or the worker is stopping. Returns how many bytes were
    /// received by then and not yet sent back: the buffer begins with them.
    ///
    /// # Errors
    /// The connection has ended.
    pub fn echo(
        &mut self,
        connection: &mut Connection,
        buffer: &mut [u8],
        hooks: &mut impl WorkerHooks,
    ) -> Result<usize, CloseReason> {
        self.well_filled = 0;
        self.pipe = self.pipe.take().or_else(|| hooks.bulk_pipe(buffer.len()));
        let Some(pipe) = &self.pipe else {
            self.is_lacking = true;
            return Ok(0);
        };
        while !hooks.is_stopping() {
            hooks.before_recv();
            let length = match receive(connection, pipe, buffer.len(), hooks) {
                Ok(length) => length,
                Err(CloseReason::Lost(error)) if is_unsupported(&error) => {
                    self.is_lacking = true;
                    break;
                }
                Err(reason) => return Err(reason),
            };
            if length == 0 {
                break;
            }
            hooks.before_answer(connection);
            let left = send_all(connection, pipe, length, hooks)?;
            if left > 0 {
                pipe.read(&mut buffer[..left]).map_err(CloseReason::Lost)?;
                return Ok(left);
            }
            if length < buffer.len() / LITTLE {
                break;
            }
        }
        Ok(0)
    }
}

/// Blocks until bytes have come into the pipe. 0: recv can tell why none come, or the worker is
/// stopping.
fn receive(
    connection: &Connection,
    pipe: &Pipe,
    most: usize,
    hooks: &mut impl WorkerHooks,
) -> Result<usize, CloseReason> {
    let mut progress = Progress::new(connection.idle_timeout);
    while !hooks.is_stopping() {
        match pipe.fill(&connection.socket, most) {
            Ok(length) => return Ok(length),
            Err(error) => check_recv_error(connection, error, &mut progress, hooks)?,
        }
    }
    Ok(0)
}

/// Blocks until the kernel has taken all bytes of the pipe. Returns how many are left when the
/// worker is stopping.
fn send_all(
    connection: &mut Connection,
    pipe: &Pipe,
    length: usize,
    hooks: &mut impl WorkerHooks,
) -> Result<usize, CloseReason> {
    let mut left = length;
    let mut progress = Progress::new(connection.idle_timeout);
    while left > 0 {
        match count_sent(connection, left, hooks, |connection| pipe.drain(&connection.socket, left)) {
            Ok(sent) => {
                left -= sent;
                progress = Progress::new(connection.idle_timeout);
            }
            Err(error) => {
                check_retryable(error, hooks)?;
                if hooks.is_stopping() {
                    return Ok(left);
                }
                check_idle(connection, &mut progress, Duration::ZERO)?;
            }
        }
    }
    debug!("echoed {length} bytes");
    Ok(0)
}
