//! The lesson of separate address spaces, in one variable.
//!
//! Each worker counts its connections in an ordinary static. All processes have it at the
//! same address, because each is a copy of the parent. Memory is copied at fork (to be
//! exact: when it is first written to), so each process counts on its own, and the
//! parent's copy stays 0. What all processes must see is shared on purpose, in the
//! [`scoreboard`](crate::scoreboard).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Atomic only because Rust requires it of a static that changes: no other process, and no
/// second thread, sees this copy.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// Counts one connection more, and returns how many this process has counted.
pub fn count() -> u64 {
    COUNTER.fetch_add(1, Relaxed) + 1
}

/// How many connections this process has counted.
pub fn value() -> u64 {
    COUNTER.load(Relaxed)
}

/// The address of the variable, in this process and in all others: a 64-bit integer.
pub fn address() -> usize {
    &raw const COUNTER as usize
}
