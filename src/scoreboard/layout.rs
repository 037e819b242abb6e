//! Where each number of the scoreboard lies in memory, and so in the file.
//!
//! The numbers are atomic, so that any process may read them at any time. What different
//! processes write lies in different structs, each on cache lines of its own. Change
//! `LAYOUT` in [`file`](super::file) when a number changes its place.

use std::sync::atomic::AtomicU64;

use crate::config::MAX_WORKERS;
use crate::sys::memory::shared_structs;

/// The most slots that there can be.
pub(super) const SLOTS: usize = MAX_WORKERS as usize;

/// A row for each worker, and one for each that finishes its last client while its
/// replacement already serves.
pub(super) const ROWS: usize = 2 * SLOTS;

/// How many events are kept: the latest ones.
pub(super) const EVENTS: usize = 64;

/// The size in bytes of the place for the [`Header`](super::Header).
pub(super) const HEADER_SIZE: usize = 512;

/// In the place of a row's number: no worker fills the slot.
pub(super) const EMPTY: u64 = 1;

/// Added to the slot of a worker.
pub(super) const STOPPED: u64 = 1 << 32;

/// In the place of a number of clients: the worker accepts no more. Noise in the file hardly
/// makes this number.
pub(super) const NO_MORE: u64 = 1 << 40;

/// What stands for the first row.
pub(super) const FIRST_ROW: u64 = 2;

shared_structs! {
    /// The whole scoreboard.
    pub(super) struct Layout {
        /// The header is text: it is read from the file, not from memory.
        _header: [AtomicU64; HEADER_SIZE / size_of::<u64>()],
        pub(super) control: ControlNumbers,
        pub(super) events: [EventNumbers; EVENTS],
        pub(super) slots: [SlotNumbers; SLOTS],
        pub(super) rows: [RowNumbers; ROWS],
    }

    /// Numbers of the whole server. The parent writes them.
    pub(super) struct ControlNumbers {
        /// Counts up before and after a change of numbers that belong together: it is odd
        /// meanwhile.
        pub(super) sequence: AtomicU64,
        pub(super) phase: AtomicU64,
        pub(super) queue_limit: AtomicU64,
        /// 1: the connections in the accept queue are another server's.
        pub(super) queue_passes_on: AtomicU64,
        /// 1: the accept queue has overflowed.
        pub(super) queue_has_overflowed: AtomicU64,
        pub(super) parents_counter: AtomicU64,
        /// The least and the most workers that there are to be.
        pub(super) least: AtomicU64,
        pub(super) most: AtomicU64,
        /// 1: the worker that takes the last place for a client is to report it. The parent sets
        /// it, and that worker clears it.
        pub(super) wants_full: AtomicU64,
        /// The most slots and rows that there have been: no others are read.
        pub(super) slots_ever: AtomicU64,
        pub(super) rows_ever: AtomicU64,
        /// The number of the latest event; the first is 1.
        pub(super) last_event: AtomicU64,
        /// How many workers have replaced another, by each
        /// [`ExitKind`](super::ExitKind): in all, as many as the slots count.
        pub(super) restarts_by_cause: [AtomicU64; 3],
    }

    /// An event. The parent writes it.
    pub(super) struct EventNumbers {
        /// The number of the event; 0 while it is written.
        pub(super) number: AtomicU64,
        /// In nanoseconds of the shared clock.
        pub(super) time: AtomicU64,
        pub(super) text: [AtomicU64; 14],
    }

    /// A slot. The parent writes it.
    pub(super) struct SlotNumbers {
        /// The index of the row of the worker that fills it, plus [`FIRST_ROW`]; or [`EMPTY`]; 0:
        /// there is no slot of this number.
        pub(super) row: AtomicU64,
        /// What its reaped workers have served.
        pub(super) connections: AtomicU64,
        pub(super) bytes: AtomicU64,
        pub(super) bad_headers: AtomicU64,
        /// How many of its workers have replaced another.
        pub(super) restarts: AtomicU64,
        /// How the last of them ended, as text.
        pub(super) last_exit: [AtomicU64; 11],
    }

    /// A row. The parent assigns and clears it; while the worker lives, the parent writes the
    /// pid and the worker all numbers after `restarts`. Both write `places`.
    pub(super) struct RowNumbers {
        /// The worker's slot plus 1, and [`STOPPED`] while a signal has stopped it; 0 is a free row.
        pub(super) slot: AtomicU64,
        pub(super) pid: AtomicU64,
        /// When it was forked, in nanoseconds of the shared clock.
        pub(super) forked_at: AtomicU64,
        pub(super) restarts: AtomicU64,
        /// The state in the lowest bits, since when above: both change at once.
        pub(super) state: AtomicU64,
        pub(super) connections: AtomicU64,
        pub(super) bytes: AtomicU64,
        pub(super) private_counter: AtomicU64,
        pub(super) careless_counter: AtomicU64,
        /// How many clients it has now.
        pub(super) clients: AtomicU64,
        /// How many it can have, or [`NO_MORE`].
        pub(super) places: AtomicU64,
        pub(super) peer: [AtomicU64; 3],
        /// The balancer through which the peer comes.
        pub(super) via: [AtomicU64; 3],
        pub(super) bad_headers: AtomicU64,
        /// The user's number plus 1; 0 is a worker that has not set its credentials yet.
        pub(super) user: AtomicU64,
        pub(super) sandbox: AtomicU64,
    }
}

const LINE: usize = 128;
const _: () = assert!(size_of::<ControlNumbers>() == LINE && size_of::<EventNumbers>() == LINE);
const _: () = assert!(size_of::<SlotNumbers>() == LINE && size_of::<RowNumbers>() == 2 * LINE);
const _: () = assert!(std::mem::offset_of!(Layout, control) == HEADER_SIZE);
const _: () = assert!(std::mem::offset_of!(Layout, events) == HEADER_SIZE + LINE);
const _: () = assert!(size_of::<Layout>() == HEADER_SIZE + LINE * (1 + EVENTS + SLOTS + 2 * ROWS));
