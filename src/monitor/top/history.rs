//! What `top` learns by looking again and again: since when a worker has done nothing else,
//! and how much was served a second. The server does nothing for it.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use crate::scoreboard::snapshot::{Snapshot, Worker};
use crate::scoreboard::{Served, State};
use crate::sys::process::ProcessState;

/// Rates are of what was served in so long before.
const LATELY: Duration = Duration::from_secs(2);

/// How many rates are kept: one for each snapshot.
const RATES: usize = 240;

/// What was served a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Connections a second.
    pub connections: f64,
    /// Bytes a second.
    pub bytes: f64,
}

/// How long a worker has done what it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// For so long.
    Exactly(Duration),
    /// For so long at least: it was so when `top` began to look.
    AtLeast(Duration),
}

/// What is compared from one snapshot to the next.
type Doing = (State, ProcessState, Served, Option<u64>);

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What had been served at some moments before.
    served: VecDeque<(Instant, Served)>,
    /// The latest one last.
    rates: VecDeque<Rate>,
    /// By pid: what the worker does, since when, and whether its beginning was seen.
    doing: HashMap<i32, (Doing, Instant, bool)>,
}

impl History {
    /// Adds a snapshot.
    pub fn add(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.measure(snapshot.totals.served, now);
        let before = std::mem::take(&mut self.doing);
        for worker in &snapshot.workers {
            let Some(pid) = worker.pid else { continue };
            let doing = (worker.state, worker.condition, worker.served, worker.clients);
            let entry = match before.get(&pid) {
                Some(same) if same.0 == doing => *same,
                Some(_) => (doing, now, true),
                None => (doing, now, false),
            };
            self.doing.insert(pid, entry);
        }
    }

    fn measure(&mut self, served: Served, now: Instant) {
        self.served.push_back((now, served));
        while self.served.len() > 2 && now - self.served[0].0 > LATELY {
            self.served.pop_front();
        }
        let (then, before) = self.served[0];
        if then < now {
            let time = (now - then).as_secs_f64();
            let a_second = |before: u64, after: u64| after.saturating_sub(before) as f64 / time;
            self.rates.push_back(Rate {
                connections: a_second(before.connections, served.connections),
                bytes: a_second(before.bytes, served.bytes),
            });
        }
        while self.rates.len() > RATES {
            self.rates.pop_front();
        }
    }

    /// The rates of the last snapshots, the latest one last.
    pub fn rates(&self) -> impl DoubleEndedIterator<Item = Rate> {
        self.rates.iter().copied()
    }

    /// How long this worker has done what it does. The scoreboard tells it where one process
    /// waits for one event. Of a send, and of a worker with several clients, it doesn't: the
    /// clock would cost the server more than all else that it notes. There the worker counts
    /// as doing the same as long as no count of it changes.
    pub fn since(&self, worker: &Worker) -> Option<Since> {
        let told = worker.condition == ProcessState::Alive
            && !matches!(worker.state, State::Writing | State::Serving);
        match worker.since {
            Some(since) if told => Some(Since::Exactly(since)),
            _ => {
                let (_, begin, was_seen) = self.doing.get(&worker.pid?)?;
                let time = begin.elapsed();
                Some(if *was_seen { Since::Exactly(time) } else { Since::AtLeast(time) })
            }
        }
    }
}

#[cfg(test)]
impl History {
    /// A history with these rates, for a test of the view.
    pub fn of_rates(rates: impl IntoIterator<Item = Rate>) -> History {
        History { rates: rates.into_iter().collect(), ..History::default() }
    }
}
