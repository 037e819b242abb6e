//! The clock that all processes share.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The cheaper of the kernel's monotonic clocks, where there are two: exact to
/// some 4 ms, and read without a system call (vdso(7)).
#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC_COARSE;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// The time since some moment that is the same for all processes until the
/// machine starts anew. Never goes back, whatever becomes of the wall clock. See
/// clock_gettime(2).
#[inline]
pub fn now() -> Duration {
    clock_gettime(CLOCK).map_or(Duration::ZERO, Duration::from)
}
