//! Waiting for a socket, and where Linux and macOS differ in what one does.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Does an accepted socket inherit the listening socket's time-outs
/// (`SO_RCVTIMEO`, `SO_SNDTIMEO`)? Linux copies them, which saves two system
/// calls a connection; macOS starts each connection without any.
pub const TIMEOUTS_ARE_INHERITED: bool = cfg!(target_os = "linux");

/// The smallest accept queue that `listen` can be asked for. Linux takes 0
/// (room for one connection); macOS takes 0 for the largest it has.
pub const SMALLEST_BACKLOG: i32 = if cfg!(target_os = "macos") { 1 } else { 0 };

/// How many bytes we have sent that the peer's TCP has not taken yet. See tcp(7),
/// SIOCOUTQ; on macOS SO_NWRITE.
///
/// # Errors
/// None for a socket that is connected, or was.
pub fn unsent(socket: impl AsFd) -> nix::Result<usize> {
    let (fd, mut bytes) = (socket.as_fd().as_raw_fd(), 0 as libc::c_int);
    #[cfg(target_os = "linux")]
    // SAFETY: this request (SIOCOUTQ by its older name) writes one int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) };
    #[cfg(not(target_os = "linux"))]
    let result = {
        let mut size = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the option is one int, and the size says that there is room.
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_NWRITE, (&raw mut bytes).cast(), &mut size) }
    };
    Errno::result(result).map(|_| bytes as usize)
}

/// poll's time-out for a wait until `deadline`, None being for ever. Rounded up: a
/// millisecond late instead of a busy millisecond.
pub fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    })
}

/// Waits until `socket` has bytes, an end of file, or a connection to give; at
/// the most for `limit`, in whole milliseconds.
///
/// # Errors
/// `EINTR` when a signal came first.
pub fn readable_within(socket: impl AsFd, limit: Duration) -> nix::Result<bool> {
    let mut socket = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut socket, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))?;
    Ok(ready > 0)
}
