//! The scoreboard at one moment, as plain data: `status`, `top`, `bench` and the parent's
//! table on SIGUSR1 are made of it. What the kernel alone knows is added: the accept queue,
//! and processes that are stopped or dead.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;
use serde::{Serialize, Serializer};

use crate::config::Model;
use crate::scoreboard::{Event, Header, Phase, Reader, Row, Scoreboard, Served, State};
use crate::sys::process::{ProcessState, inspect};
use crate::sys::sandbox::{Layer, Sandbox};
use crate::sys::{clock, socket};

/// What a server is doing. Serialized it is `status --json`: programs rely on the names.
#[derive(Debug, Clone, Serialize)]
pub struct Snapshot {
    /// The program's version.
    pub version: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// The parent's pid.
    pub pid: i32,
    /// Where the server is in its life.
    #[serde(rename = "state")]
    pub phase: Phase,
    /// How long the server has lived.
    #[serde(rename = "uptime_s", serialize_with = "seconds")]
    pub uptime: Duration,
    /// How the workers serve.
    pub model: Model,
    /// How many clients one worker serves at once.
    pub clients_per_worker: usize,
    /// How many workers there are to be.
    pub pool: Pool,
    /// Connections that wait to be accepted.
    #[serde(serialize_with = "if_known")]
    pub accept_queue: AcceptQueue,
    /// What all processes have done.
    pub totals: Totals,
    /// One variable, of which each process has a copy.
    pub private_counter: PrivateCounter,
    /// The slots in their order, then the workers that are leaving.
    pub workers: Vec<Worker>,
    /// The state of the parent, as the kernel tells it.
    #[serde(skip)]
    pub parent: ProcessState,
    /// The latest events, the latest one last.
    #[serde(skip)]
    pub events: Vec<Event>,
    /// When the snapshot was taken, on the clock of the events.
    #[serde(skip)]
    pub taken: Duration,
}

/// How many workers there are to be, without those that leave.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Pool {
    /// The least.
    pub min: usize,
    /// The most.
    pub max: usize,
    /// How many there are to be now.
    pub now: usize,
}

/// Connections that wait to be accepted.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct AcceptQueue {
    /// How many wait, where the system tells.
    pub length: Option<u64>,
    /// How many can wait.
    pub limit: u64,
}

/// What all processes have done.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Totals {
    /// All that was ever served.
    #[serde(flatten)]
    pub served: Served,
    /// How many workers were replaced.
    pub restarts: u64,
    /// The same, for each [`ExitKind`](crate::scoreboard::ExitKind) in its order.
    #[serde(skip)]
    pub by_cause: [u64; 3],
}

/// The [private counter](crate::private_counter).
#[derive(Debug, Clone, Serialize)]
pub struct PrivateCounter {
    /// Where it lies in each process.
    pub address: String,
    /// The parent's own copy.
    pub parent: u64,
}

/// A slot with the process that fills it, or a process that fills none any more. Where there
/// is no process, nothing is known of it.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// Its slot.
    pub slot: usize,
    /// The process; None also for an instant after the fork.
    pub pid: Option<i32>,
    /// What it is doing. A dead process that is not yet reaped is down.
    #[serde(serialize_with = "name")]
    pub state: State,
    /// How many workers of the slot have replaced another.
    pub restarts: u64,
    /// How long the process has lived.
    #[serde(rename = "uptime_s", serialize_with = "seconds")]
    pub uptime: Option<Duration>,
    /// What was served in this slot, with what its reaped workers have served. Of a worker
    /// that is leaving: what it has served itself.
    #[serde(flatten)]
    pub served: Served,
    /// Its private counter.
    pub private_counter: Option<u64>,
    /// Its careless counter.
    pub careless_counter: Option<u64>,
    /// How many clients it has now.
    pub clients: Option<u64>,
    /// How many threads it has; while it starts, not all of them are there yet.
    pub threads: Option<usize>,
    /// The address of its client. None also if it has several.
    pub peer: Option<SocketAddr>,
    /// The balancer through which that client comes, if a PROXY header said so.
    pub via: Option<SocketAddr>,
    /// How the last worker that left the slot has ended.
    pub last_exit: Option<String>,
    /// Its user's number. None also while it starts.
    pub uid: Option<u32>,
    /// Its sandbox. None also while it starts.
    #[serde(serialize_with = "layers")]
    pub sandbox: Option<Sandbox>,
    /// How long it has been in its state.
    #[serde(skip)]
    pub since: Option<Duration>,
    /// The state of the process, as the kernel tells it: a worker that is stopped can't say so.
    #[serde(skip)]
    pub condition: ProcessState,
    /// Is the worker leaving, and its slot filled by another worker, or removed?
    #[serde(skip)]
    pub leaving: bool,
}

impl Snapshot {
    /// Looks at a server from outside.
    pub fn of(reader: &Reader) -> Snapshot {
        Snapshot::take(reader.scoreboard, &reader.header)
    }

    /// Looks at the scoreboard of the server `header`. It costs that server
    /// nothing, and a number that makes no sense is shown as it is.
    pub fn take(scoreboard: Scoreboard, header: &Header) -> Snapshot {
        let now = clock::now();
        let length = socket::accept_queue(header.pid, header.inode);
        let mut snapshot = scoreboard.seqlock_read(|| {
            let ((min, max), by_cause) = (scoreboard.pool_limits(), scoreboard.restarts_by_cause());
            let workers = workers(scoreboard, header, now);
            // Summed up from what was read once: they go on counting meanwhile.
            let removed = scoreboard.reaped_totals_of_removed_slots();
            let served = workers.iter().map(|worker| worker.served).chain([removed]).sum();
            Snapshot {
                version: header.version.clone(),
                address: header.address,
                pid: header.pid,
                phase: scoreboard.phase(),
                uptime: now.saturating_sub(Duration::from_nanos(header.started)),
                model: header.model,
                clients_per_worker: header.clients,
                pool: Pool { min, max, now: scoreboard.slots().count() },
                accept_queue: AcceptQueue { length, limit: scoreboard.queue_limit() },
                totals: Totals { served, restarts: scoreboard.restarts(), by_cause },
                private_counter: PrivateCounter {
                    address: format!("{:#x}", header.private_counter),
                    parent: scoreboard.parents_counter(),
                },
                workers,
                parent: ProcessState::Alive,
                events: scoreboard.events(),
                taken: now,
            }
        });
        snapshot.inspect_processes();
        snapshot
    }

    /// Adds which processes are stopped or dead.
    fn inspect_processes(&mut self) {
        let server = Pid::from_raw(self.pid);
        self.parent = inspect(server).map_or(self.parent, |look| look.condition);
        for worker in &mut self.workers {
            let look = worker.pid.and_then(|pid| inspect(Pid::from_raw(pid)));
            let ours = look.filter(|look| look.parent == server);
            worker.condition = ours.map_or(worker.condition, |look| look.condition);
            if worker.condition == ProcessState::Dead {
                worker.state = State::Down;
            }
        }
    }

    /// How many clients all workers have.
    pub fn clients(&self) -> u64 {
        // Saturating: noise in the file must not become a panic.
        self.workers.iter().filter_map(|worker| worker.clients).fold(0, u64::saturating_add)
    }

    /// What was served in each slot, also by workers that are leaving: connections, or bytes.
    pub fn by_slot(&self, count: impl Fn(Served) -> u64) -> BTreeMap<usize, u64> {
        let in_place = self.workers.iter().filter(|worker| !worker.leaving);
        let mut counts: BTreeMap<_, _> = in_place.map(|worker| (worker.slot, 0_u64)).collect();
        for worker in &self.workers {
            if let Some(slot) = counts.get_mut(&worker.slot) {
                *slot = slot.saturating_add(count(worker.served));
            }
        }
        counts
    }
}

impl Worker {
    /// The worker of `row`, by its own numbers alone.
    fn new(slot: usize, row: Option<Row>, header: &Header, now: Duration) -> Worker {
        let (state, since) = row.map_or((State::Down, Duration::ZERO), Row::state);
        let age = if since.is_zero() { Duration::ZERO } else { now.saturating_sub(since) };
        let (uid, sandbox) = row.and_then(Row::credentials).unzip();
        Worker {
            slot,
            pid: row.and_then(Row::pid).map(Pid::as_raw),
            state,
            restarts: row.map_or(0, Row::restarts),
            uptime: row.map(|row| now.saturating_sub(row.forked_at())),
            served: row.map_or(Served::default(), Row::served),
            private_counter: row.map(Row::private_counter),
            careless_counter: row.map(Row::careless_counter),
            clients: row.map(Row::clients),
            threads: row.map(|_| header.model.threads(header.clients)),
            peer: row.and_then(Row::peer),
            via: row.and_then(Row::via),
            last_exit: None,
            uid,
            sandbox,
            since: row.map(|_| age),
            condition: ProcessState::Alive,
            leaving: false,
        }
    }

    /// The word for what it is doing, in tables.
    pub fn state_name(&self) -> &'static str {
        match self.condition {
            ProcessState::Stopped => "stopped",
            ProcessState::Dead => "dead",
            ProcessState::Alive => self.state.name(),
        }
    }
}

fn workers(scoreboard: Scoreboard, header: &Header, now: Duration) -> Vec<Worker> {
    let in_place = scoreboard.slots().map(|slot| {
        let worker = Worker::new(slot, scoreboard.in_place(slot), header, now);
        Worker {
            restarts: scoreboard.slot_restarts(slot),
            served: [worker.served, scoreboard.reaped_totals(slot)].into_iter().sum(),
            last_exit: scoreboard.last_exit(slot),
            ..worker
        }
    });
    let is_in_place = |row: Row, slot| scoreboard.in_place(slot) == Some(row);
    let leaving = scoreboard.rows_ever().filter_map(|row| {
        let slot = row.slot().filter(|slot| !is_in_place(row, *slot))?;
        Some(Worker { leaving: true, ..Worker::new(slot, Some(row), header, now) })
    });
    in_place.chain(leaving).collect()
}

// How the JSON is written where it differs.

fn seconds<S: Serializer>(
    time: &(impl Copy + Into<Option<Duration>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let time: Option<Duration> = (*time).into();
    time.map(|time| time.as_millis() as f64 / 1_000.0).serialize(serializer)
}

fn if_known<S: Serializer>(queue: &AcceptQueue, serializer: S) -> Result<S::Ok, S::Error> {
    queue.length.map(|_| queue).serialize(serializer)
}

fn name<S: Serializer>(state: &State, serializer: S) -> Result<S::Ok, S::Error> {
    state.name().serialize(serializer)
}

fn layers<S: Serializer>(sandbox: &Option<Sandbox>, serializer: S) -> Result<S::Ok, S::Error> {
    let names = |sandbox: Sandbox| sandbox.parts().map(Layer::name).collect::<Vec<_>>();
    sandbox.map(names).serialize(serializer)
}
