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
    /// When the worker that fills it was forked; of an empty slot [`Duration::MAX`].
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
    /// The workers in these slots are to leave.
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
    if is_full(workers) {
        let add = waiting.div_ceil(limits.places).min(room);
        let is_above = workers.len() > limits.least;
        // A worker that has a client now cannot be due earlier than after the whole time.
        let again_at = is_above.then_some(now + limits.spare_for);
        return Decision { add, watch_queue: room > 0 && add == 0, again_at, ..Decision::default() };
    }
    // An empty slot is filled as soon as that is possible. Until then another would not help.
    let is_missing = |worker: &Worker| worker.load == Load::Missing;
    let wants_full = room > 0 && !workers.iter().any(is_missing);
    let (give_up, again_at) = give_up(limits, workers, now);
    Decision { give_up, wants_full, again_at, ..Decision::default() }
}

/// The slots to give up now, and when to decide on others. The youngest of the idle workers are
/// spare, as many as there are above the least; each of them may stay for a while.
fn give_up(limits: Limits, workers: &[Worker], now: Duration) -> (Vec<usize>, Option<Duration>) {
    let above_least = workers.len().saturating_sub(limits.least);
    let has_room = workers.iter().any(|worker| !matches!(worker.load, Load::Full | Load::Missing));
    let idle = workers.iter().filter_map(|worker| match worker.load {
        Load::IdleSince(since) => Some((worker, since + limits.spare_for)),
        // It was wanted for a connection that another worker has accepted meanwhile.
        Load::Missing if has_room => Some((worker, now)),
        _ => None,
    });
    let mut idle: Vec<_> = idle.collect();
    idle.sort_by_key(|(worker, _)| Reverse(worker.forked_at));
    idle.truncate(above_least);
    let (due, later): (Vec<_>, Vec<_>) = idle.into_iter().partition(|(_, until)| *until <= now);
    let give_up: Vec<_> = due.into_iter().map(|(worker, _)| worker.slot).collect();
    // One that has clients now can be due no earlier than after the whole time.
    let again_at = later.into_iter().map(|(_, until)| until).fold(now + limits.spare_for, Duration::min);
    let again_at = (give_up.len() < above_least).then_some(again_at);
    (give_up, again_at)
}

#[cfg(test)]
mod tests;
