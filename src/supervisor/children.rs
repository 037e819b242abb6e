//! The parent's record of its children: which worker fills which slot.
//!
//! A slot is a place for one worker: `--workers 4` makes slots 0 to 3. A child that fills no
//! slot is leaving, and is not replaced. Nothing here forks, waits or signals.

use std::collections::BTreeMap;
use std::ops::RangeFrom;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::scoreboard::{ExitKind, Row, State, Writer};
use crate::supervisor::reap::ReapedWorker;
use crate::supervisor::respawn;
use crate::supervisor::scaling::{Load, Worker};
use crate::sys::process::WaitStatus;

/// How many workers may finish clients that stay, for each slot. When there are more, the
/// next one that retires is replaced when another has left.
const LEAVING_PER_SLOT: usize = 8;

/// All children not yet reaped, and the slots.
#[derive(Debug)]
pub struct Children {
    /// By their numbers.
    slots: BTreeMap<usize, Slot>,
    unreaped: BTreeMap<Pid, Child>,
    scoreboard: Writer,
    /// Rows that no child has any more; the last one is used next.
    free_rows: Vec<Row>,
    /// The indices of those that no child has had yet. Not a list: each worker would inherit
    /// its 128 KiB.
    unused_rows: RangeFrom<usize>,
}

#[derive(Debug)]
struct Slot {
    worker: Option<Pid>,
    last: Option<Predecessor>,
    /// It must not be filled before.
    due: Instant,
}

#[derive(Debug)]
struct Child {
    slot: usize,
    row: Row,
    born: Instant,
    /// It accepts no more, and finishes its clients.
    is_retiring: bool,
}

/// The worker that filled a slot last.
#[derive(Debug, Clone, Copy)]
pub struct Predecessor {
    pub pid: Pid,
    /// When its death was seen; None: it lives, and finishes its clients.
    pub died: Option<Instant>,
    /// Why it is replaced.
    pub cause: ExitKind,
}

impl Slot {
    /// Why a worker that is forked for it now replaces another. None: it is the first.
    fn restart_cause(&self) -> Option<ExitKind> {
        // The one that is there leaves when the new one is ready.
        self.worker.map(|_| ExitKind::Left).or(self.last.map(|last| last.cause))
    }
}

impl Children {
    /// Starts with empty slots.
    pub fn new(scoreboard: Writer, slots: u16) -> Children {
        let mut children = Children {
            slots: BTreeMap::new(),
            unreaped: BTreeMap::new(),
            scoreboard,
            free_rows: Vec::new(),
            unused_rows: 0..,
        };
        (0..slots).for_each(|_| children.add_slot());
        children
    }

    /// Adds an empty slot, to be filled at once. It gets the lowest number that is free.
    pub fn add_slot(&mut self) {
        let next = self.slots.len();
        // Below the last one there is a gap only if that one has a higher number than it would need.
        let has_gap = self.last_slot().is_some_and(|last| last >= next);
        let gap = has_gap.then(|| (0..next).find(|number| !self.slots.contains_key(number))).flatten();
        let number = gap.unwrap_or(next);
        self.slots.insert(number, Slot { worker: None, last: None, due: Instant::now() });
        self.scoreboard.add_slot(number);
    }

    /// Removes a slot, and returns the worker that filled it.
    pub fn remove_slot(&mut self, number: usize) -> Option<Pid> {
        let slot = self.slots.remove(&number)?;
        self.scoreboard.remove_slot(number);
        slot.worker
    }

    /// As [`remove_slot`](Children::remove_slot), and the worker is to accept no more.
    pub fn give_up_slot(&mut self, number: usize) -> Option<Pid> {
        let pid = self.remove_slot(number)?;
        self.scoreboard.retire(self.unreaped.get(&pid)?.row);
        Some(pid)
    }

    /// The number of the last slot.
    pub fn last_slot(&self) -> Option<usize> {
        self.slots.keys().next_back().copied()
    }

    /// Removes all slots: from now on no death can lead to a fork. The scoreboard goes on
    /// showing them.
    pub fn remove_all_slots(&mut self) {
        self.slots.clear();
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// An empty slot that is due, and the worker that filled it last.
    pub fn next_empty_slot(&self, now: Instant) -> Option<(usize, Option<Predecessor>)> {
        let (number, slot) = self.slots.iter().find(|(_, slot)| slot.worker.is_none() && slot.due <= now)?;
        Some((*number, slot.last))
    }

    /// When the next empty slot may be filled.
    pub fn next_due(&self) -> Option<Instant> {
        self.slots.values().filter(|slot| slot.worker.is_none()).map(|slot| slot.due).min()
    }

    /// The empty slot must not be filled before `due`.
    pub fn wait_until(&mut self, slot: usize, due: Instant) {
        if let Some(slot) = self.slots.get_mut(&slot) {
            slot.due = due;
        }
    }

    /// A row for a child that is to be forked. None: thousands of workers are still leaving.
    pub fn take_row(&mut self, slot: usize) -> Option<Row> {
        let row = self.free_rows.pop().or_else(|| self.scoreboard.row(self.unused_rows.next()?))?;
        let replaces = self.slots.get(&slot).and_then(Slot::restart_cause).is_some();
        self.scoreboard.assign(row, slot, replaces);
        Some(row)
    }

    /// Takes back the row of a child that has died, or could not be forked.
    pub fn free_row(&mut self, row: Row, slot: usize, status: Option<WaitStatus>) {
        self.scoreboard.clear(row, slot, status);
        self.free_rows.push(row);
    }

    /// Adds a child that was forked. It fills the slot, if there is one of that number; the
    /// worker that filled it before is leaving from now on.
    pub fn add(&mut self, pid: Pid, slot: usize, row: Row, born: Instant) {
        self.scoreboard.set_pid(row, pid);
        self.unreaped.insert(pid, Child { slot, row, born, is_retiring: false });
        if let Some(filled) = self.slots.get_mut(&slot) {
            self.scoreboard.fill(slot, row, filled.restart_cause());
            filled.worker = Some(pid);
        }
    }

    /// Removes a child that has died. None: it is not one of these.
    pub fn remove(&mut self, pid: Pid, status: WaitStatus, died: Instant) -> Option<ReapedWorker> {
        let child = self.unreaped.remove(&pid)?;
        let (row, connections) = (child.row, child.row.served().connections);
        let (clients, client) = (row.clients(), row.peer());
        self.free_row(child.row, child.slot, Some(status));
        let filled = self.slots.get_mut(&child.slot).filter(|slot| slot.worker == Some(pid));
        let was_in_place = filled.is_some();
        if let Some(slot) = filled {
            let last = Predecessor { pid, died: Some(died), cause: ExitKind::of(status) };
            *slot = Slot { worker: None, last: Some(last), due: died };
        }
        Some(ReapedWorker { slot: child.slot, was_in_place, born: child.born, connections, clients, client })
    }

    /// Notes that a child was stopped, or goes on. A stopped one accepts nothing: it has no room.
    pub fn set_stopped(&mut self, pid: Pid, is_stopped: bool) {
        if let Some(child) = self.unreaped.get(&pid) {
            self.scoreboard.set_stopped(child.row, is_stopped);
        }
    }

    /// Notes that a child accepts no more, and finishes its clients. Returns its slot, if it
    /// fills one.
    pub fn retire(&mut self, pid: Pid) -> Option<usize> {
        let slot = self.slot_of(pid)?;
        self.unreaped.get_mut(&pid)?.is_retiring = true;
        Some(slot)
    }

    /// Empties the slot of a child that retires, so that another can fill it. Does nothing if
    /// there is none, or if too many are leaving already: a worker that an intruder controls
    /// must not make the parent fork without an end.
    pub fn vacate_next(&mut self) -> Option<Pid> {
        if self.leaving() >= LEAVING_PER_SLOT * self.slots.len() {
            return None;
        }
        let is_retiring = |pid: &Pid| self.unreaped.get(pid).is_some_and(|child| child.is_retiring);
        let pid = self.in_place().find(is_retiring)?;
        let slot = self.slot_of(pid)?;
        let last = Some(Predecessor { pid, died: None, cause: ExitKind::Left });
        self.slots.insert(slot, Slot { worker: None, last, due: Instant::now() });
        self.scoreboard.vacate(slot);
        Some(pid)
    }

    /// Puts a child that was leaving back into its slot, if the slot is empty and the child
    /// lives.
    pub fn restore(&mut self, pid: Pid) -> bool {
        let Some(child) = self.unreaped.get(&pid) else { return false };
        match self.slots.get_mut(&child.slot) {
            Some(slot) if slot.worker.is_none() => {
                slot.worker = Some(pid);
                self.scoreboard.restore(child.slot, child.row);
                true
            }
            _ => false,
        }
    }

    /// The slot that it fills.
    pub fn slot_of(&self, pid: Pid) -> Option<usize> {
        let slot = self.unreaped.get(&pid)?.slot;
        (self.slots.get(&slot)?.worker == Some(pid)).then_some(slot)
    }

    /// Is it a child, not yet reaped?
    pub fn contains(&self, pid: Pid) -> bool {
        self.unreaped.contains_key(&pid)
    }

    /// How many there are, including those that are leaving.
    pub fn len(&self) -> u64 {
        self.unreaped.len() as u64
    }

    /// How many of them fill no slot any more.
    pub fn leaving(&self) -> usize {
        self.unreaped.len() - self.in_place().count()
    }

    /// Are all dead and reaped?
    pub fn is_empty(&self) -> bool {
        self.unreaped.is_empty()
    }

    /// All, including those that are leaving.
    pub fn pids(&self) -> impl Iterator<Item = Pid> {
        self.unreaped.keys().copied()
    }

    /// Those that fill slots.
    pub fn in_place(&self) -> impl Iterator<Item = Pid> {
        self.slots.values().filter_map(|slot| slot.worker)
    }

    /// The slots, and what their workers do.
    pub fn loads(&self) -> Vec<Worker> {
        let load = |(slot, filled): (&usize, &Slot)| {
            let row = filled.worker.and_then(|pid| self.unreaped.get(&pid)).map(|child| child.row);
            let load = row.map_or(Load::Missing, |row| match row.state() {
                _ if !row.has_room() => Load::Full,
                (State::Starting, _) => Load::Starting,
                (State::Idle, since) => Load::IdleSince(since),
                _ => Load::Partial,
            });
            Worker { slot: *slot, forked_at: row.map_or(Duration::MAX, Row::forked_at), load }
        };
        self.slots.iter().map(load).collect()
    }

    /// Is any worker that fills a slot past its start?
    pub fn has_stable_worker(&self, now: Instant) -> bool {
        self.in_place()
            .filter_map(|pid| self.unreaped.get(&pid))
            .any(|child| respawn::is_stable(child.born, now))
    }

    /// Has any child a client, as far as the scoreboard tells? A damaged row counts as a
    /// client.
    pub fn is_any_busy(&self) -> bool {
        self.unreaped.values().any(|child| child.row.is_busy() || child.row.slot() != Some(child.slot))
    }
}
