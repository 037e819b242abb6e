//! Writes a line of the log, or drops it, but never blocks.
//!
//! Parent and workers share the descriptor. A line in pieces would tear, and a reader that
//! stops reading would stop the process that writes. So each line is one write(2), and only
//! if there is room. stderr's O_NONBLOCK is left as it is: it is shared with the user's
//! shell.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicI32, Ordering};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc::{O_NOCTTY, O_NONBLOCK, S_IFMT, S_IFREG, STDERR_FILENO};
use nix::poll::PollFlags;
use nix::sys::stat::fstat;
use nix::unistd;

use super::DROPPED;
use crate::error::Error;
use crate::sys::descriptors::replace_descriptor;
use crate::sys::readiness::wait_for;
use crate::sys::signal;

/// The descriptor that the lines are written to.
static DESCRIPTOR: AtomicI32 = AtomicI32::new(STDERR_FILENO);

/// The descriptor that the log is written to: stderr's, or one of its own.
pub(crate) fn log_fd() -> RawFd {
    DESCRIPTOR.load(Ordering::Relaxed)
}

/// Gathers what simplelog writes in pieces, and writes it a line at a time.
pub(super) struct Lines {
    output: Box<dyn AsFd + Send + Sync>,
    terminal: bool,
    line: Vec<u8>,
}

impl Lines {
    /// Opens the file, or the terminal that stderr is.
    pub(super) fn open(path: Option<&Path>, terminal: bool) -> Result<Lines, Error> {
        let file = match path {
            Some(path) => Some(open(path).map_err(|error| {
                let what = format_args!("open the log file {}", path.display());
                Error::new(what, &error, "choose another with --log-file")
            })?),
            None => reopen_terminal(),
        };
        let output: Box<dyn AsFd + Send + Sync> = match file {
            Some(file) => Box::new(file),
            None => Box::new(io::stderr()),
        };
        DESCRIPTOR.store(output.as_fd().as_raw_fd(), Ordering::Relaxed);
        Ok(Lines { output, terminal, line: Vec::with_capacity(256) })
    }

    fn write_line(&self) -> nix::Result<()> {
        let write = || write_if_room(&self.output, &self.line);
        if self.terminal { signal::without_ttou(|| retry_eagain(write)) } else { write() }
    }
}

impl Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(piece);
        if piece.ends_with(b"\n") {
            if self.write_line().is_err() {
                DROPPED.fetch_add(1, Ordering::Relaxed);
            }
            self.line.clear();
        }
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the file at `path` anew, under the same descriptor: the file before may have been renamed
/// (logrotate(8)). Children that were forked before go on with that one.
///
/// # Errors
/// Those of open(2); then the log stays as it is.
pub(super) fn reopen(path: &Path) -> io::Result<()> {
    open(path).and_then(|file| replace_descriptor(log_fd(), file))
}

/// Opens for appending, without blocking: neither for the reader of a fifo now, nor for room
/// later.
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).custom_flags(O_NONBLOCK | O_NOCTTY).open(path)
}

/// A terminal that is stopped (Ctrl-S) blocks a write, and it can take a line in part. Opened
/// once more it has an O_NONBLOCK of its own, which other processes don't share. None: stderr
/// is no terminal, or cannot be opened.
fn reopen_terminal() -> Option<File> {
    unistd::ttyname(io::stderr()).ok().and_then(|path| open(&path).ok())
}

/// Is it a plain file: no terminal, pipe, or device?
pub(super) fn is_plain_file(output: impl AsFd) -> bool {
    fstat(output).is_ok_and(|data| data.st_mode & S_IFMT == S_IFREG)
}

/// A terminal returns EAGAIN while another process writes to it, which takes microseconds;
/// and while it is stopped, which may last.
fn retry_eagain(write: impl Fn() -> nix::Result<()>) -> nix::Result<()> {
    for _ in 0..200 {
        match write() {
            Err(Errno::EAGAIN) => thread::yield_now(),
            result => return result,
        }
    }
    Err(Errno::EAGAIN)
}

/// One write(2), or none: a pipe that is ready takes PIPE_BUF bytes without blocking and
/// keeps them together (pipe(7)), and these lines are shorter.
///
/// # Errors
/// `EAGAIN` if there is no room, `ENOSPC` if there is room for a part only, and all that
/// write(2) lists.
pub(crate) fn write_if_room(output: impl AsFd, line: &[u8]) -> nix::Result<()> {
    if !wait_for(&output, PollFlags::POLLOUT, Some(Instant::now()))? {
        return Err(Errno::EAGAIN);
    }
    loop {
        match unistd::write(&output, line) {
            Ok(written) if written == line.len() => return Ok(()),
            Ok(_) => return Err(Errno::ENOSPC),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}
