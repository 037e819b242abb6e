//! The scoreboard: what all processes can see of each other.
//!
//! It lies in memory that was mapped shared before the first fork: in a file, so
//! that it can be looked at from outside without the server's help. It set_credentials
//! nothing but atomic numbers. Each process has a row, which it alone writes,
//! without a system call; the parent hands rows out and clears them. A worker that
//! is killed at any instant leaves it readable. All else the parent writes alone.
//!
//! The parent keeps its own books, and signals no pid that it reads here. What it
//! takes from here is whether anybody was served or is busy: a worker gone wrong
//! can spoil the picture, at worst cause a needless sweep or a wrong exit status at
//! a forced end, and nothing else. [`Snapshot`](crate::scoreboard::snapshot::Snapshot) is the
//! whole at one moment.
//!
//! Loads are relaxed, with a fence where the order matters: a view's memory is
//! read-only, and for such Rust vouches for nothing else.

mod codec;
mod events;
mod file;
mod reader;
mod row;
pub mod snapshot;

use std::fs::File;
use std::iter::Sum;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::fence;
use std::thread;
use std::time::{Duration, Instant};

pub use self::events::Event;
pub use self::file::{Identity, open, remove_stale};
pub use self::reader::Reader;
pub use self::row::{Row, State};
use crate::config::MAX_WORKERS;
use crate::sys::memory::{self, CacheLine};
use crate::sys::process::WaitStatus;

/// The most slots that there can be.
const SLOTS: usize = MAX_WORKERS as usize;

/// A row for each worker, and one for each that finishes its last client while
/// its successor serves already.
const ROWS: usize = 2 * SLOTS;

/// So many events are kept, the latest ones.
const EVENTS: usize = 64;

// The lines, in order; the first ones hold a text that says what the file is.
const NEWS: usize = file::IDENTITY_SIZE / size_of::<CacheLine>();
const FIRST_EVENT: usize = NEWS + 1;
const FIRST_SLOT: usize = FIRST_EVENT + EVENTS;
const FIRST_ROW: usize = FIRST_SLOT + SLOTS;
const LINES: usize = FIRST_ROW + ROWS;

// The numbers of the line of news.
/// Odd while the parent changes what belongs together.
const CHANGES: usize = 0;
const PHASE: usize = 1;
const QUEUE_LIMIT: usize = 2;
const PARENTS_COUNTER: usize = 3;
const SLOTS_NOW: usize = 4;
const SLOTS_EVER: usize = 5;
const ROWS_EVER: usize = 6;
const LAST_EVENT: usize = 7;

// The numbers of a slot's line: the row (and 1) of who fills it, what the dead
// have served, how many have ever filled it, and a text.
const ROW: usize = 0;
const CONNECTIONS: usize = 1;
const BYTES: usize = 2;
const FILLED: usize = 3;
const LAST_EXIT: usize = 4;

/// All of it.
#[derive(Debug, Clone, Copy)]
pub struct Scoreboard(&'static [CacheLine]);

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It serves.
    Running,
    /// It shuts down.
    Draining,
    /// It has ended by itself, with this exit status.
    Ended(u8),
}

/// What a process, or all of them, have served.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// Clients accepted.
    pub connections: u64,
    /// Bytes sent back.
    pub bytes: u64,
}

impl Sum for Served {
    // Wrapping: noise in the file must not become a panic.
    fn sum<I: Iterator<Item = Served>>(parts: I) -> Served {
        parts.fold(Served::default(), |sum, layer| Served {
            connections: sum.connections.wrapping_add(layer.connections),
            bytes: sum.bytes.wrapping_add(layer.bytes),
        })
    }
}

impl Scoreboard {
    /// Maps it, before the first fork: a file of [`Scoreboard::SIZE`] bytes, or
    /// memory without a name.
    ///
    /// # Errors
    /// `ENOMEM` when the system has no room for it, and what mmap(2) lists.
    pub fn map(file: Option<&File>) -> nix::Result<Scoreboard> {
        let lines = match file {
            None => memory::map_shared(LINES),
            Some(file) => memory::map_shared_file(file, LINES),
        };
        lines.map(Scoreboard)
    }

    /// Its size in bytes.
    pub const SIZE: usize = LINES * size_of::<CacheLine>();

    fn news(self, which: usize) -> &'static AtomicU64 {
        &self.0[NEWS].0[which]
    }

    // What the parent writes.

    /// The server enters another phase of its life.
    pub fn enter(self, phase: Phase) {
        let number = match phase {
            Phase::Running => 0,
            Phase::Draining => 1,
            Phase::Ended(status) => 2 + u64::from(status),
        };
        self.news(PHASE).store(number, Relaxed);
    }

    /// The accept queue set_credentials so many from now on.
    pub fn set_queue_limit(self, limit: u64) {
        self.news(QUEUE_LIMIT).store(limit, Relaxed);
    }

    /// The parent shows its own copy of the private counter.
    pub fn show_parents_counter(self, value: u64) {
        self.news(PARENTS_COUNTER).store(value, Relaxed);
    }

    /// So many slots are to be filled from now on, at the most [`MAX_WORKERS`].
    pub fn set_slots(self, slots: usize) {
        self.change(|| {
            self.news(SLOTS_NOW).store(slots as u64, Relaxed);
            self.news(SLOTS_EVER).fetch_max(slots as u64, Relaxed);
        });
    }

    /// Hands a free row to the worker that is about to be forked for `slot`.
    pub fn assign(self, row: Row, slot: usize) {
        self.change(|| {
            row.assign(slot, self.slot(slot)[FILLED].load(Relaxed));
            self.news(ROWS_EVER).fetch_max(row.index() as u64 + 1, Relaxed);
        });
    }

    /// A new process fills its slot from now on, the one of this row. Who filled it
    /// before is leaving.
    pub fn fill(self, slot: usize, row: Row) {
        self.change(|| {
            self.restore(slot, row);
            self.slot(slot)[FILLED].fetch_add(1, Relaxed);
        });
    }

    /// Who filled the slot before fills it again.
    pub fn restore(self, slot: usize, row: Row) {
        self.slot(slot)[ROW].store(row.index() as u64 + 1, Relaxed);
    }

    /// Clears the row of a process that is dead, or was never born. What it has
    /// served stays with its slot, and how it died.
    pub fn clear(self, row: Row, slot: usize, death: Option<WaitStatus>) {
        let (slot, served) = (self.slot(slot), row.served());
        self.change(|| {
            slot[CONNECTIONS].fetch_add(served.connections, Relaxed);
            slot[BYTES].fetch_add(served.bytes, Relaxed);
            if let Some(death) = death {
                codec::store_text(&slot[LAST_EXIT..], &death.to_string());
            }
            row.clear();
        });
    }

    /// The parent changes numbers that belong together: who looks at the board
    /// meanwhile looks again.
    fn change(self, change: impl FnOnce()) {
        let changes = self.news(CHANGES);
        let before = changes.load(Relaxed);
        changes.store(before | 1, Relaxed);
        fence(Release);
        change();
        changes.store((before | 1).wrapping_add(1), Release);
    }

    // What all may read.

    /// Looks at numbers that belong together: again, while the parent changes them,
    /// which it does in less than a microsecond, but often when many come and go. Not
    /// for long, because it may have been stopped or killed in the midst of it.
    pub fn seqlock_read<T>(self, seqlock_read: impl Fn() -> T) -> T {
        const PATIENCE: Duration = Duration::from_millis(20);
        let (changes, start) = (self.news(CHANGES), Instant::now());
        loop {
            let before = changes.load(Relaxed);
            fence(Acquire);
            let seen = seqlock_read();
            fence(Acquire);
            let is_whole = before & 1 == 0 && changes.load(Relaxed) == before;
            if is_whole || start.elapsed() >= PATIENCE {
                return seen;
            }
            thread::yield_now();
        }
    }

    /// Where the server is in its life.
    pub fn phase(self) -> Phase {
        match self.news(PHASE).load(Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            number => Phase::Ended((number - 2) as u8),
        }
    }

    /// How many the accept queue set_credentials.
    pub fn queue_limit(self) -> u64 {
        self.news(QUEUE_LIMIT).load(Relaxed)
    }

    /// The parent's own copy of the private counter.
    pub fn parents_counter(self) -> u64 {
        self.news(PARENTS_COUNTER).load(Relaxed)
    }

    /// How many slots are to be filled.
    pub fn slots(self) -> usize {
        SLOTS.min(self.news(SLOTS_NOW).load(Relaxed) as usize)
    }

    /// All that was ever served, by whichever process.
    pub fn served(self) -> Served {
        let past = self.slots_ever().map(|slot| self.past(slot));
        past.chain(self.rows_ever().map(Row::served)).sum()
    }

    /// How many processes were replaced.
    pub fn restarts(self) -> u64 {
        self.slots_ever().map(|slot| self.slot_restarts(slot)).fold(0, u64::wrapping_add)
    }

    /// What the dead of a slot have served.
    pub fn past(self, slot: usize) -> Served {
        let slot = self.slot(slot);
        Served { connections: slot[CONNECTIONS].load(Relaxed), bytes: slot[BYTES].load(Relaxed) }
    }

    /// What the dead have served of slots that were taken away.
    pub fn past_of_removed_slots(self) -> Served {
        self.slots_ever().skip(self.slots()).map(|slot| self.past(slot)).sum()
    }

    /// How many processes have filled a slot before the last one.
    pub fn slot_restarts(self, slot: usize) -> u64 {
        self.slot(slot)[FILLED].load(Relaxed).saturating_sub(1)
    }

    /// How the last one that left a slot has died.
    pub fn last_exit(self, slot: usize) -> Option<String> {
        Some(codec::load_text(&self.slot(slot)[LAST_EXIT..])).filter(|text| !text.is_empty())
    }

    /// The row of the process that fills a slot.
    pub fn in_place(self, slot: usize) -> Option<Row> {
        let index = (self.slot(slot)[ROW].load(Relaxed) as usize).checked_sub(1)?;
        self.row(index).filter(|row| row.slot() == Some(slot))
    }

    /// A row; there are two for each of [`MAX_WORKERS`].
    pub fn row(self, index: usize) -> Option<Row> {
        (index < ROWS).then(|| Row::new(&self.0[FIRST_ROW + index], index))
    }

    /// The rows that were ever somebody's.
    pub fn rows_ever(self) -> impl Iterator<Item = Row> {
        let rows = self.news(ROWS_EVER).load(Relaxed) as usize;
        (0..rows).map_while(move |index| self.row(index))
    }

    fn slots_ever(self) -> impl Iterator<Item = usize> {
        0..SLOTS.min(self.news(SLOTS_EVER).load(Relaxed) as usize)
    }

    fn slot(self, index: usize) -> &'static [AtomicU64; 16] {
        &self.0[FIRST_SLOT + index].0
    }
}
