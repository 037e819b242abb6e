//! The clock that all processes share: parent and workers write its times to the
//! scoreboard, and other processes compare them with theirs.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The cheaper of the kernel's monotonic clocks, where there are two: exact to
/// some 4 ms, and read without a system call (vdso(7)).
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// The time since a moment that is the same for all processes until the machine restarts.
/// It never goes back, even if the wall clock is set. See clock_gettime(2).
#[inline]
pub fn now() -> Duration {
    clock_gettime(CLOCK).map_or(Duration::ZERO, Duration::from)
}
