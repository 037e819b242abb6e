//! The lesson of separate address spaces, in one variable.
//!
//! Each worker counts its clients in an ordinary static. All processes have it
//! at the same address, since each is a copy of the parent; but memory is copied
//! at fork (in truth, when it is first written to), so each counts for itself,
//! and the parent's stays 0. What all are to see goes into the
//! [`scoreboard`](crate::scoreboard), shared on purpose.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Atomic only because Rust wants that of a static that changes: no other
/// process, and no second thread, ever sees this copy.
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// One client more; how many that makes in this process.
pub fn count() -> u64 {
    COUNTER.fetch_add(1, Relaxed) + 1
}

/// How many clients this process has counted.
pub fn value() -> u64 {
    COUNTER.load(Relaxed)
}

/// Where the variable lies, in this process and in all others: a 64-bit integer.
pub fn address() -> usize {
    &raw const COUNTER as usize
}
