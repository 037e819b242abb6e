//! What the parent writes on the scoreboard. No other process has a [`Writer`] that it
//! uses: a worker writes its own row through a [`RowWriter`].

use std::fs::File;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Relaxed, Release, SeqCst};
use std::sync::atomic::fence;

use nix::unistd::Pid;

use super::layout::{EMPTY, FIRST_ROW, STOPPED};
use super::{ExitKind, Phase, Row, RowWriter, Scoreboard, State, codec};
use crate::sys::clock;
use crate::sys::memory::{self, Atomics};
use crate::sys::process::WaitStatus;

/// The parent's access to the scoreboard. It also reads, as a [`Scoreboard`]; that type can
/// do nothing else:
///
/// ```
/// # use prefork_echo::scoreboard::Writer;
/// let writer = Writer::map(None).unwrap();
/// writer.set_queue_limit(1024);
/// assert_eq!(writer.queue_limit(), 1024);
/// ```
///
/// ```compile_fail,E0599
/// # use prefork_echo::scoreboard::Reader;
/// fn write_to_read_only_memory(reader: &Reader) {
///     reader.scoreboard.set_queue_limit(1024);
/// }
/// ```
#[derive(Debug, Clone, Copy)]
pub struct Writer(Scoreboard);

impl Deref for Writer {
    type Target = Scoreboard;

    fn deref(&self) -> &Scoreboard {
        &self.0
    }
}

impl Writer {
    /// Maps the scoreboard, before the first fork: a file of [`Scoreboard::SIZE`] bytes, or
    /// memory without a name.
    ///
    /// # Errors
    /// `ENOMEM` when the system has no room for it, and what mmap(2) lists.
    pub fn map(file: Option<&File>) -> nix::Result<Writer> {
        memory::map_shared(file).map(|numbers| Writer(Scoreboard { numbers }))
    }

    /// The server enters another phase of its life.
    pub fn set_phase(self, phase: Phase) {
        let number = match phase {
            Phase::Running => 0,
            Phase::Draining => 1,
            Phase::Ended(status) => 2 + u64::from(status),
        };
        self.numbers.control.phase.store(number, Relaxed);
    }

    /// How many connections the accept queue holds from now on.
    pub fn set_queue_limit(self, limit: u64) {
        self.numbers.control.queue_limit.store(limit, Relaxed);
    }

    /// The connections in the accept queue are another server's from now on.
    pub fn pass_queue_on(self) {
        self.numbers.control.queue_passes_on.store(1, Relaxed);
    }

    /// The accept queue has overflowed. Workers cannot know: the sandbox keeps the kernel's counters
    /// from them.
    pub fn set_queue_has_overflowed(self) {
        self.numbers.control.queue_has_overflowed.store(1, Relaxed);
    }

    /// Publishes the parent's own copy of the private counter.
    pub fn set_parents_counter(self, value: u64) {
        self.numbers.control.parents_counter.store(value, Relaxed);
    }

    /// The least and the most workers that there are to be from now on.
    pub fn set_pool_limits(self, least: usize, most: usize) {
        self.numbers.control.least.store(least as u64, Relaxed);
        self.numbers.control.most.store(most as u64, Relaxed);
    }

    /// Whether the worker that takes the last place for a client is to report it. After this
    /// call, either that worker sees it, or this process sees that the place is taken.
    pub fn set_wants_full(self, wanted: bool) {
        self.numbers.control.wants_full.store(wanted.into(), Relaxed);
        fence(SeqCst);
    }

    /// Adds a slot, an empty one. Its number is below
    /// [`MAX_WORKERS`](crate::config::MAX_WORKERS).
    pub fn add_slot(self, slot: usize) {
        self.seqlock_write(|| {
            self.numbers.slots[slot].row.store(EMPTY, Relaxed);
            self.numbers.control.slots_ever.fetch_max(slot as u64 + 1, Relaxed);
        });
    }

    /// Removes a slot. If a worker fills it, that one is leaving.
    pub fn remove_slot(self, slot: usize) {
        self.seqlock_write(|| self.numbers.slots[slot].row.store(0, Relaxed));
    }

    /// Gives a free row to the worker that is about to be forked for `slot`. `replaces`: another
    /// worker has filled the slot before, or still does.
    pub fn assign(self, row: Row, slot: usize, replaces: bool) {
        let writer = self.row_writer(row);
        // Wrapping: noise in the file must not become a panic.
        let restarts = self.numbers.slots[slot].restarts.load(Relaxed).wrapping_add(replaces.into());
        self.seqlock_write(|| {
            writer.numbers.clear();
            writer.numbers.restarts.store(restarts, Relaxed);
            writer.numbers.forked_at.store(clock::now().as_nanos() as u64, Relaxed);
            writer.numbers.slot.store(slot as u64 + 1, Relaxed);
            writer.set_state(State::Starting);
            self.numbers.control.rows_ever.fetch_max(row.index as u64 + 1, Relaxed);
        });
    }

    /// Notes the process that was forked for a row.
    pub fn set_pid(self, row: Row, pid: Pid) {
        self.row_writer(row).numbers.pid.store(pid.as_raw() as u64, Relaxed);
    }

    /// Fills a slot with a new worker, that of `row`. The worker that filled it before is
    /// leaving. `cause`: why the new one replaces another, if it does.
    pub fn fill(self, slot: usize, row: Row, cause: Option<ExitKind>) {
        self.seqlock_write(|| {
            self.restore(slot, row);
            self.numbers.slots[slot].restarts.store(row.restarts(), Relaxed);
            if let Some(cause) = cause {
                self.numbers.control.restarts_by_cause[cause as usize].fetch_add(1, Relaxed);
            }
        });
    }

    /// Empties a slot: its worker is leaving, and is shown as such.
    pub fn vacate(self, slot: usize) {
        self.seqlock_write(|| self.numbers.slots[slot].row.store(EMPTY, Relaxed));
    }

    /// Fills a slot with the worker that filled it before.
    pub fn restore(self, slot: usize, row: Row) {
        self.numbers.slots[slot].row.store(FIRST_ROW + row.index as u64, Relaxed);
    }

    /// Notes that the worker of this row was stopped, or goes on.
    pub fn set_stopped(self, row: Row, is_stopped: bool) {
        let slot = &self.row_writer(row).numbers.slot;
        let stopped = if is_stopped { STOPPED } else { 0 };
        slot.store(slot.load(Relaxed) & !STOPPED | stopped, Relaxed);
    }

    /// Asks the worker of this row to accept no more. It looks when a signal interrupts it.
    pub fn retire(self, row: Row) {
        self.row_writer(row).retire();
    }

    /// Clears the row of a worker that was reaped or could not be forked. What it has
    /// served, and how it ended, stays with its slot.
    pub fn clear(self, row: Row, slot: usize, exit: Option<WaitStatus>) {
        let (slot, served) = (&self.numbers.slots[slot], row.served());
        self.seqlock_write(|| {
            slot.connections.fetch_add(served.connections, Relaxed);
            slot.bytes.fetch_add(served.bytes, Relaxed);
            slot.bad_headers.fetch_add(served.bad_headers, Relaxed);
            if let Some(exit) = exit {
                codec::store_text(&slot.last_exit, &exit.to_string());
            }
            self.row_writer(row).numbers.clear();
        });
    }

    /// Adds to the latest events; a text longer than 112 bytes is cut.
    pub fn record(self, text: &str) {
        let last_event = &self.numbers.control.last_event;
        let number = last_event.load(Relaxed).wrapping_add(1);
        let event = self.event_numbers(number);
        // A reader takes what has no number for no event: it is removed first and set last.
        event.number.store(0, Relaxed);
        fence(Release);
        event.time.store(clock::now().as_nanos() as u64, Relaxed);
        codec::store_text(&event.text, text);
        event.number.store(number, Release);
        last_event.store(number, Release);
    }

    /// The access of the worker that is forked for this row. By the index alone: `row` itself
    /// may be of a read-only mapping.
    pub fn row_writer(self, row: Row) -> RowWriter {
        RowWriter(Row { numbers: &self.numbers.rows[row.index], index: row.index })
    }

    /// Changes numbers that belong together: see [`Scoreboard::seqlock_read`].
    fn seqlock_write(self, write: impl FnOnce()) {
        let sequence = &self.numbers.control.sequence;
        let before = sequence.load(Relaxed);
        sequence.store(before | 1, Relaxed);
        fence(Release);
        write();
        sequence.store((before | 1).wrapping_add(1), Release);
    }
}
