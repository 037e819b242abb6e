//! A counter that shows two things: memory is private after fork, and threads share it.
//!
//! Each worker counts its connections in an ordinary static. All processes have it at the
//! same address, because each is a copy of the parent. Memory is copied at fork (to be
//! exact: when it is first written to), so each process counts on its own, and the
//! parent's copy stays 0. The threads of one process count in one variable. What all
//! processes must see is shared on purpose, in the [`scoreboard`](crate::scoreboard).

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Threads add to it in one step each, which cannot be interrupted: no count is lost.
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

/// A second counter, which is changed carelessly on purpose: a thread reads it, works for a
/// while, and writes back what it has read and one. Of two threads that do so at once, both
/// write the same number, and one count is lost. With one thread a process that cannot be.
pub mod careless {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    /// Atomic only so that the loss is one of counts: each load and each store is whole.
    static COUNTER: AtomicU64 = AtomicU64::new(0);

    /// The first of the three steps.
    pub fn read() -> u64 {
        COUNTER.load(Relaxed)
    }

    /// The last of the three steps.
    pub fn write(value: u64) {
        COUNTER.store(value, Relaxed);
    }
}
