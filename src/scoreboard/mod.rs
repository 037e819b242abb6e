//! The scoreboard: what all processes can see of each other.
//!
//! It lies in memory that is mapped shared before the first fork (`layout`), in a
//! `file`, so that `status`, `top` and `bench` read it from outside without the server's
//! help. Three types have access: the parent writes by its [`Writer`], a worker writes its
//! own [`row`](RowWriter), and all read by [`Scoreboard`] and [`Row`], also through the
//! read-only mapping of a [`Reader`]. The rest are the latest [`events`](Event), texts and
//! addresses as numbers (`codec`), and the whole at one moment
//! ([`snapshot`](crate::scoreboard::snapshot::Snapshot)).
//!
//! An update is a store to an atomic number, without a system call. A worker that is killed
//! at any instant leaves the scoreboard readable. The parent signals no pid that it reads
//! here. It only reads here whether a connection was served or a worker is busy. So a worker
//! gone wrong can cause a needless drain, or a wrong exit status at a forced end; it can make
//! the pool grow to its most, or keep it from growing; and if it crashes again and again, it
//! is replaced each time at once, without the wait. Nothing else.
//!
//! Loads are relaxed, with a fence where the order matters: a reader's memory is read-only,
//! and Rust guarantees no other kind of atomic load there.

mod codec;
mod events;
mod file;
mod layout;
mod reader;
mod row;
pub mod snapshot;
mod writer;

use std::iter::Sum;
use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

pub use self::events::Event;
pub use self::file::{Header, open, remove_stale};
use self::layout::{FIRST_ROW, Layout, ROWS, SLOTS};
pub use self::reader::Reader;
pub use self::row::{Row, RowWriter, State};
pub use self::writer::Writer;

/// The scoreboard, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Scoreboard {
    numbers: &'static Layout,
}

/// Where a server is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// It serves.
    Running,
    /// It shuts down.
    Draining,
    /// It has ended by itself, with this exit status.
    Ended(#[serde(skip)] u8),
}

/// Why a worker died, or is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It left in order, with exit code 0, or leaves when its replacement is ready.
    Left,
    /// It was killed from outside.
    Killed,
    /// It failed by itself.
    Crashed,
}

impl ExitKind {
    /// All causes.
    pub const ALL: [ExitKind; 3] = [ExitKind::Left, ExitKind::Killed, ExitKind::Crashed];

    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            ExitKind::Left => "left",
            ExitKind::Killed => "killed",
            ExitKind::Crashed => "crashed",
        }
    }
}

/// What a process, or all of them, have served.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Served {
    /// Connections accepted.
    pub connections: u64,
    /// Bytes sent back.
    pub bytes: u64,
    /// Those of the connections that were closed because their PROXY header was missing or wrong.
    pub bad_headers: u64,
}

impl Sum for Served {
    // Wrapping: noise in the file must not become a panic.
    fn sum<I: Iterator<Item = Served>>(parts: I) -> Served {
        parts.fold(Served::default(), |sum, part| Served {
            connections: sum.connections.wrapping_add(part.connections),
            bytes: sum.bytes.wrapping_add(part.bytes),
            bad_headers: sum.bad_headers.wrapping_add(part.bad_headers),
        })
    }
}

impl Scoreboard {
    /// Its size in bytes.
    pub const SIZE: usize = size_of::<Layout>();

    /// Reads numbers that belong together, and reads again while the parent changes them. A
    /// change takes less than a microsecond. The attempts end after 20 ms, because the
    /// parent may have been stopped or killed during a change.
    pub fn seqlock_read<T>(self, read: impl Fn() -> T) -> T {
        const LIMIT: Duration = Duration::from_millis(20);
        let (sequence, start) = (&self.numbers.control.sequence, Instant::now());
        loop {
            let before = sequence.load(Relaxed);
            fence(Acquire);
            let value = read();
            fence(Acquire);
            let is_whole = before & 1 == 0 && sequence.load(Relaxed) == before;
            if is_whole || start.elapsed() >= LIMIT {
                return value;
            }
            thread::yield_now();
        }
    }

    /// Where the server is in its life.
    pub fn phase(self) -> Phase {
        match self.numbers.control.phase.load(Relaxed) {
            0 => Phase::Running,
            1 => Phase::Draining,
            number => Phase::Ended((number - 2) as u8),
        }
    }

    /// How many connections the accept queue holds.
    pub fn queue_limit(self) -> u64 {
        self.numbers.control.queue_limit.load(Relaxed)
    }

    /// Are the connections in the accept queue another server's, which has the same socket?
    pub fn queue_passes_on(self) -> bool {
        self.numbers.control.queue_passes_on.load(Relaxed) != 0
    }

    /// Had the accept queue overflowed when the server began to shut down?
    pub fn queue_has_overflowed(self) -> bool {
        self.numbers.control.queue_has_overflowed.load(Relaxed) != 0
    }

    /// The parent's own copy of the private counter.
    pub fn parents_counter(self) -> u64 {
        self.numbers.control.parents_counter.load(Relaxed)
    }

    /// The least and the most workers that there are to be.
    pub fn pool_limits(self) -> (usize, usize) {
        let control = &self.numbers.control;
        (control.least.load(Relaxed) as usize, control.most.load(Relaxed) as usize)
    }

    /// The slots that are to be filled, in their order.
    pub fn slots(self) -> impl Iterator<Item = usize> {
        self.slots_ever().filter(move |slot| self.has_slot(*slot))
    }

    /// Is there a slot of this number?
    pub fn has_slot(self, slot: usize) -> bool {
        self.numbers.slots.get(slot).is_some_and(|slot| slot.row.load(Relaxed) > 0)
    }

    /// Has any worker that fills a slot room for one more client, or will it when it has
    /// started?
    pub fn has_room(self) -> bool {
        self.slots_ever().filter_map(|slot| self.in_place(slot)).any(Row::has_room)
    }

    /// All that was ever served, by all processes.
    pub fn served(self) -> Served {
        let reaped = self.slots_ever().map(|slot| self.reaped_totals(slot));
        reaped.chain(self.rows_ever().map(Row::served)).sum()
    }

    /// How many workers were replaced.
    pub fn restarts(self) -> u64 {
        self.slots_ever().map(|slot| self.slot_restarts(slot)).fold(0, u64::wrapping_add)
    }

    /// The same, for each [`ExitKind`] in its order.
    pub fn restarts_by_cause(self) -> [u64; 3] {
        ExitKind::ALL.map(|cause| self.numbers.control.restarts_by_cause[cause as usize].load(Relaxed))
    }

    /// What the reaped workers of a slot have served.
    pub fn reaped_totals(self, slot: usize) -> Served {
        let slot = &self.numbers.slots[slot];
        Served {
            connections: slot.connections.load(Relaxed),
            bytes: slot.bytes.load(Relaxed),
            bad_headers: slot.bad_headers.load(Relaxed),
        }
    }

    /// What the reaped workers of all removed slots have served.
    pub fn reaped_totals_of_removed_slots(self) -> Served {
        let removed = self.slots_ever().filter(|slot| !self.has_slot(*slot));
        removed.map(|slot| self.reaped_totals(slot)).sum()
    }

    /// How many workers of a slot have replaced another.
    pub fn slot_restarts(self, slot: usize) -> u64 {
        self.numbers.slots[slot].restarts.load(Relaxed)
    }

    /// How the last worker that left a slot has ended.
    pub fn last_exit(self, slot: usize) -> Option<String> {
        Some(codec::load_text(&self.numbers.slots[slot].last_exit)).filter(|text| !text.is_empty())
    }

    /// The row of the worker that fills a slot.
    pub fn in_place(self, slot: usize) -> Option<Row> {
        let index = self.numbers.slots.get(slot)?.row.load(Relaxed).checked_sub(FIRST_ROW)?;
        self.row(index as usize).filter(|row| row.slot() == Some(slot))
    }

    /// A row; there are two for each of [`MAX_WORKERS`](crate::config::MAX_WORKERS).
    pub fn row(self, index: usize) -> Option<Row> {
        Some(Row { numbers: self.numbers.rows.get(index)?, index })
    }

    /// The rows that were ever assigned.
    pub fn rows_ever(self) -> impl Iterator<Item = Row> {
        let rows = ROWS.min(self.numbers.control.rows_ever.load(Relaxed) as usize);
        (0..rows).filter_map(move |index| self.row(index))
    }

    fn slots_ever(self) -> impl Iterator<Item = usize> {
        0..SLOTS.min(self.numbers.control.slots_ever.load(Relaxed) as usize)
    }
}
