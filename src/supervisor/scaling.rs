//! How many workers there are to be: a function of the limits, the workers and the clock.
//!
//! Between its least and its most the pool grows at once, when connections wait and no worker
//! has room for one; a worker that has been idle for a while is given up again. As in
//! `respawn`, nothing here forks, waits, or reads a clock.

use std::cmp::Reverse;
use std::time::Duration;

/// What limits the pool.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The least and the most workers that there are to be.
    pub least: usize,
    pub most: usize,
    /// How many clients one worker serves at once.
    pub places: usize,
    /// A worker above the least is given up when it has been idle for so long.
    pub spare_for: Duration,
}

/// A slot of the pool. Times are those of the [shared clock](crate::sys::clock).
#[derive(Debug, Clone, Copy)]
pub struct Worker {
    /// The number of the slot.
    pub slot: usize,
    /// When the worker that fills it was forked.
    pub forked_at: Duration,
    /// What that worker does.
    pub load: Load,
}

/// What a worker does, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// The slot is empty: its worker could not be forked, or crashed at its start.
    Missing,
    /// It will have room when it has started.
    Starting,
    /// It has no client, since this time.
    IdleSince(Duration),
    /// It has clients, and room for one more.
    Partial,
    /// It has no room.
    Full,
}

/// What is to be done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Decision {
    /// So many workers are to be added.
    pub add: usize,
    /// The workers in these slots are to leave, the youngest first.
    pub give_up: Vec<usize>,
    /// No worker has room: from now on the accept queue is to be watched.
    pub watch_queue: bool,
    /// The worker that takes the last place for a client is to report it.
    pub wants_full: bool,
    /// When to decide again, if nothing happens before.
    pub again_at: Option<Duration>,
}

/// Does no worker have room for one more client?
pub fn is_full(workers: &[Worker]) -> bool {
    workers.iter().all(|worker| worker.load == Load::Full)
}

/// Decides. `waiting`: how many connections are in the accept queue. `leaving`: how many
/// processes finish their clients and fill no slot any more; they count, because the most is
/// what the machine is to bear.
pub fn decide(limits: Limits, workers: &[Worker], waiting: usize, leaving: usize, now: Duration) -> Decision {
    let room = limits.most.saturating_sub(workers.len() + leaving);
    let spare = workers.len().saturating_sub(limits.least);
    let is_full = is_full(workers);
    let add = if is_full { waiting.div_ceil(limits.places).min(room) } else { 0 };
    // An empty slot is filled as soon as that is possible. Until then another would not help.
    let may_add = room > 0 && workers.iter().all(|worker| worker.load != Load::Missing);
    let mut decision = Decision {
        add,
        watch_queue: may_add && is_full && add == 0,
        wants_full: may_add && !is_full,
        ..Decision::default()
    };
    if spare > 0 && add == 0 {
        let idle = workers.iter().filter_map(|worker| match worker.load {
            Load::IdleSince(since) => {
                Some((Reverse(worker.forked_at), since + limits.spare_for, worker.slot))
            }
            _ => None,
        });
        let (mut due, later): (Vec<_>, Vec<_>) = idle.partition(|(_, until, _)| *until <= now);
        due.sort_unstable();
        decision.give_up = due.into_iter().take(spare).map(|(.., slot)| slot).collect();
        if decision.give_up.len() < spare {
            // One that has clients now can be due no earlier than after the whole time.
            let whole = now + limits.spare_for;
            decision.again_at = Some(later.into_iter().map(|(_, until, _)| until).fold(whole, Duration::min));
        }
    }
    decision
}
