//! Waiting until one of a few descriptors is ready: poll(2), with a deadline. For many there
//! is [`poller`](super::poller).

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits until one of `sources` is ready, or until `deadline`; None is for ever. Returns
/// how many are ready: 0 when the deadline came first.
///
/// # Errors
/// `EINTR` when a signal came first.
pub fn wait(sources: &mut [PollFd<'_>], deadline: Option<Instant>) -> nix::Result<usize> {
    poll(sources, timeout_until(deadline)).map(|ready| ready as usize)
}

/// Waits until `fd` is ready for one of `events`, or until `deadline`; None is for ever.
/// With a deadline that has passed it only looks. Returns whether the descriptor is ready.
///
/// # Errors
/// As [`wait`].
pub fn wait_for(fd: impl AsFd, events: PollFlags, deadline: Option<Instant>) -> nix::Result<bool> {
    wait(&mut [PollFd::new(fd.as_fd(), events)], deadline).map(|ready| ready > 0)
}

/// Sleeps for `limit`.
///
/// # Errors
/// As [`wait`].
pub fn sleep(limit: Duration) -> nix::Result<()> {
    wait(&mut [], Some(Instant::now() + limit)).map(drop)
}

/// The time-out of poll and epoll for a wait until `deadline`. Rounded up to whole milliseconds: the last
/// part of one must not be a busy loop.
pub(super) fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now()).as_nanos();
        PollTimeout::try_from(left.div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
    })
}
