//! A pipe between a socket and itself: splice(2) moves bytes from the socket to the pipe, and
//! back, and they never enter this process. Only Linux has it.

use std::io::{self, PipeReader, PipeWriter, Read};
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::errno::Errno;

/// A pipe of this process alone. Dropping it closes it, with the bytes in it.
#[derive(Debug)]
pub struct Pipe {
    reader: PipeReader,
    writer: PipeWriter,
}

impl Pipe {
    /// Makes a pipe that has room for `bytes`, if the system lets it be so large. See pipe(7),
    /// pipe-user-pages-soft.
    ///
    /// # Errors
    /// `ENOSYS` where there is no splice, and those of pipe(2).
    pub fn new(bytes: usize) -> io::Result<Pipe> {
        if cfg!(not(target_os = "linux")) {
            return Err(Errno::ENOSYS.into());
        }
        let (reader, writer) = io::pipe()?;
        #[cfg(target_os = "linux")]
        let _ = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_SETPIPE_SZ(bytes as i32));
        #[cfg(not(target_os = "linux"))]
        let _ = bytes;
        Ok(Pipe { reader, writer })
    }

    /// The higher one of the numbers of its descriptors.
    pub fn highest_fd(&self) -> RawFd {
        self.reader.as_raw_fd().max(self.writer.as_raw_fd())
    }

    /// Moves up to `bytes` bytes into the pipe, which is empty, from a socket. Blocks as recv
    /// does. 0: there are none, by the end of file, or because an urgent byte is next.
    ///
    /// # Errors
    /// Those of recv(2), and those of [`is_unsupported`].
    pub fn fill(&self, socket: impl AsFd, bytes: usize) -> io::Result<usize> {
        Ok(splice(socket, &self.writer, bytes)?)
    }

    /// Moves `bytes` bytes, which are in the pipe, or a part of them, to a socket. Blocks as
    /// send does.
    ///
    /// # Errors
    /// Those of send(2).
    pub fn drain(&self, socket: impl AsFd, bytes: usize) -> io::Result<usize> {
        Ok(splice(&self.reader, socket, bytes)?)
    }

    /// Reads bytes that are in the pipe.
    ///
    /// # Errors
    /// None that a correct call can cause.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        (&self.reader).read_exact(bytes)
    }
}

#[cfg(target_os = "linux")]
fn splice(from: impl AsFd, to: impl AsFd, bytes: usize) -> nix::Result<usize> {
    nix::fcntl::splice(from, None, to, None, bytes, nix::fcntl::SpliceFFlags::SPLICE_F_MOVE)
}

#[cfg(not(target_os = "linux"))]
fn splice(_: impl AsFd, _: impl AsFd, _: usize) -> nix::Result<usize> {
    Err(Errno::ENOSYS)
}

/// Does this error say that splice cannot be had, with any socket? A container's filter may
/// refuse it.
pub fn is_unsupported(error: &io::Error) -> bool {
    [Errno::ENOSYS, Errno::EPERM, Errno::EINVAL].iter().any(|no| error.raw_os_error() == Some(*no as i32))
}
