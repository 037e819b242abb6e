//! The parent's book-keeping of its children: who fills which slot.
//!
//! A slot is a place to be filled: `--workers 4` makes slots 0 to 3. A child
//! that fills no slot is leaving, and nobody replaces it. Nothing here forks,
//! reaps or signals.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use nix::unistd::Pid;

use crate::scoreboard::{Row, Writer};
use crate::supervisor::respawn::Respawn;
use crate::sys::process::WaitStatus;

/// All children not yet reaped, and the slots.
#[derive(Debug)]
pub struct Children {
    slots: Vec<Slot>,
    living: BTreeMap<Pid, Child>,
    scoreboard: Writer,
    /// So many were handed out,
    rows_used: usize,
    /// and these given back.
    free_rows: Vec<Row>,
}

#[derive(Debug)]
struct Slot {
    worker: Option<Pid>,
    /// Who filled it last, and when that death was seen.
    last: Option<(Pid, Instant)>,
    /// Not to be filled before.
    due: Instant,
}

#[derive(Debug)]
struct Child {
    slot: usize,
    row: Row,
    born: Instant,
}

/// A child that has died.
#[derive(Debug)]
pub struct ReapedWorker {
    /// The slot that it fills, or filled before it was replaced.
    pub slot: usize,
    /// Did it fill the slot to the end? Then the slot is empty now.
    pub was_in_place: bool,
    /// When it was forked.
    pub born: Instant,
    /// Clients that it had accepted.
    pub connections: u64,
    /// Whom it was serving.
    pub client: Option<SocketAddr>,
}

impl Children {
    /// So many slots, all empty.
    pub fn new(scoreboard: Writer, slots: u16) -> Children {
        let mut children = Children {
            slots: Vec::new(),
            living: BTreeMap::new(),
            scoreboard,
            rows_used: 0,
            free_rows: Vec::new(),
        };
        (0..slots).for_each(|_| children.add_slot());
        children
    }

    /// Adds an empty slot, to be filled at once.
    pub fn add_slot(&mut self) {
        self.slots.push(Slot { worker: None, last: None, due: Instant::now() });
        self.scoreboard.set_slots(self.slots.len());
    }

    /// Takes the last slot away. Who filled it is leaving from now on.
    pub fn remove_slot(&mut self) -> Option<Pid> {
        let slot = self.slots.pop()?;
        self.scoreboard.set_slots(self.slots.len());
        slot.worker
    }

    /// Takes all slots away: from now on no death can lead to a fork. The
    /// scoreboard goes on showing them, and how they become empty.
    pub fn remove_all_slots(&mut self) {
        self.slots.clear();
    }

    /// How many slots there are.
    pub fn slots(&self) -> usize {
        self.slots.len()
    }

    /// An empty slot that may be filled by now; who filled it last, and when
    /// that death was seen.
    pub fn next_empty_slot(&self, now: Instant) -> Option<(usize, Option<(Pid, Instant)>)> {
        let vacant = |slot: &Slot| slot.worker.is_none() && slot.due <= now;
        let slot = self.slots.iter().position(vacant)?;
        Some((slot, self.slots[slot].last))
    }

    /// When the next empty slot may be filled.
    pub fn next_due(&self) -> Option<Instant> {
        self.slots.iter().filter(|slot| slot.worker.is_none()).map(|slot| slot.due).min()
    }

    /// The empty slot must not be filled before `due`.
    pub fn wait_until(&mut self, slot: usize, due: Instant) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.due = due;
        }
    }

    /// A row for a child that is to be forked. None only while thousands leave.
    pub fn take_row(&mut self, slot: usize) -> Option<Row> {
        let row = self.free_rows.pop().or_else(|| {
            let row = self.scoreboard.row(self.rows_used);
            row.inspect(|_| self.rows_used += 1)
        })?;
        self.scoreboard.assign(row, slot);
        Some(row)
    }

    /// Gives the row back of a child that has died, or could not be forked.
    pub fn free_row(&mut self, row: Row, slot: usize, death: Option<WaitStatus>) {
        self.scoreboard.clear(row, slot, death);
        self.free_rows.push(row);
    }

    /// A child was forked. It fills its slot, if there is one of that number;
    /// who filled it before is leaving from now on.
    pub fn add(&mut self, pid: Pid, slot: usize, row: Row, born: Instant) {
        self.scoreboard.set_pid(row, pid);
        self.living.insert(pid, Child { slot, row, born });
        if let Some(place) = self.slots.get_mut(slot) {
            place.worker = Some(pid);
            self.scoreboard.fill(slot, row);
        }
    }

    /// Strikes off a child that has died. None: it was no child of ours.
    pub fn reap(&mut self, pid: Pid, death: WaitStatus, died: Instant) -> Option<ReapedWorker> {
        let child = self.living.remove(&pid)?;
        let (connections, client) = (child.row.served().connections, child.row.peer());
        self.free_row(child.row, child.slot, Some(death));
        let place = self.slots.get_mut(child.slot).filter(|slot| slot.worker == Some(pid));
        let was_in_place = place.is_some();
        if let Some(slot) = place {
            *slot = Slot { worker: None, last: Some((pid, died)), due: died };
        }
        Some(ReapedWorker { slot: child.slot, was_in_place, born: child.born, connections, client })
    }

    /// Puts a child that was leaving back into its slot, if the slot is empty
    /// and the child lives.
    pub fn restore(&mut self, pid: Pid) -> bool {
        let Some(child) = self.living.get(&pid) else { return false };
        match self.slots.get_mut(child.slot) {
            Some(slot) if slot.worker.is_none() => {
                slot.worker = Some(pid);
                self.scoreboard.restore(child.slot, child.row);
                true
            }
            _ => false,
        }
    }

    /// ServerSelector slot it fills.
    pub fn slot_of(&self, pid: Pid) -> Option<usize> {
        let slot = self.living.get(&pid)?.slot;
        (self.slots.get(slot)?.worker == Some(pid)).then_some(slot)
    }

    /// Is it a child of ours, not yet reaped? Only then may it be signalled: no
    /// other process can have its pid.
    pub fn contains(&self, pid: Pid) -> bool {
        self.living.contains_key(&pid)
    }

    /// All, with those who are leaving.
    pub fn pids(&self) -> impl ExactSizeIterator<Item = Pid> {
        self.living.keys().copied()
    }

    /// Those who fill slots.
    pub fn in_place(&self) -> impl Iterator<Item = Pid> {
        self.slots.iter().filter_map(|slot| slot.worker)
    }

    /// Is any worker that fills a slot past its start?
    pub fn is_any_well(&self, now: Instant) -> bool {
        self.in_place().filter_map(|pid| self.living.get(&pid)).any(|child| Respawn::is_well(child.born, now))
    }

    /// Has any child a client, as far as the scoreboard tells? If somebody has spoilt
    /// it, it may.
    pub fn is_any_busy(&self) -> bool {
        self.living.values().any(|child| child.row.is_busy() || child.row.slot() != Some(child.slot))
    }
}
