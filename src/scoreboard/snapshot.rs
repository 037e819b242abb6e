//! The scoreboard at one moment, as plain data: `status`, `top`, `bench` and the parent's
//! table on SIGUSR1 are made of it. What the kernel alone knows is added: the accept queue,
//! and processes that are stopped or dead.

use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;

use crate::monitor::distribution::Distribution;
use crate::scoreboard::{Event, Header, Phase, Reader, Row, Scoreboard, Served, State};
use crate::sys::process::{ProcessState, inspect};
use crate::sys::sandbox::Sandbox;
use crate::sys::{clock, socket};

/// What a server is doing.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The server's name, address and start.
    pub header: Header,
    /// Where the server is in its life.
    pub phase: Phase,
    /// How long the server has lived.
    pub uptime: Duration,
    /// Connections that wait to be accepted, where the system tells.
    pub queue: Option<u64>,
    /// How many connections can wait.
    pub queue_limit: u64,
    /// All that was ever served, by all processes.
    pub served: Served,
    /// How many workers were replaced.
    pub restarts: u64,
    /// The parent's own copy of the private counter.
    pub parents_counter: u64,
    /// The slots in their order, then the workers that are leaving.
    pub workers: Vec<Worker>,
    /// The state of the parent, as the kernel tells it.
    pub parent: ProcessState,
    /// The latest events, the latest one last.
    pub events: Vec<Event>,
    /// When the snapshot was taken, on the clock of the events.
    pub taken: Duration,
}

/// A slot with the process that fills it, or a process that fills none any more.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its slot.
    pub slot: usize,
    /// Is the worker leaving, and its slot filled by another worker, or removed?
    pub leaving: bool,
    /// The process; None when the slot is empty.
    pub process: Option<Process>,
    /// How many workers have filled the slot before.
    pub restarts: u64,
    /// What was served in this slot, with what its reaped workers have served. Of a worker
    /// that is leaving: what it has served itself.
    pub served: Served,
    /// How the last worker that left the slot has ended.
    pub last_exit: Option<String>,
}

/// A worker process.
#[derive(Debug, Clone)]
pub struct Process {
    /// None for an instant after the fork.
    pub pid: Option<Pid>,
    /// Its state, as the kernel tells it: a worker that is stopped can't say so.
    pub condition: ProcessState,
    /// What it is doing.
    pub state: State,
    /// How long it has been in that state.
    pub since: Duration,
    /// How long it has lived.
    pub uptime: Duration,
    /// Its private counter.
    pub private_counter: u64,
    /// The address of its client.
    pub peer: Option<SocketAddr>,
    /// Its user's number and its sandbox. None while it starts.
    pub credentials: Option<(u32, Sandbox)>,
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
        let queue = socket::accept_queue(header.pid, header.inode);
        let mut snapshot = scoreboard.seqlock_read(|| {
            let workers = workers(scoreboard, now);
            // Summed up from what was read once: they go on counting meanwhile.
            let served = workers
                .iter()
                .map(|worker| worker.served)
                .chain([scoreboard.reaped_totals_of_removed_slots()]);
            Snapshot {
                header: header.clone(),
                phase: scoreboard.phase(),
                uptime: now.saturating_sub(Duration::from_nanos(header.started)),
                queue,
                queue_limit: scoreboard.queue_limit(),
                served: served.sum(),
                restarts: scoreboard.restarts(),
                parents_counter: scoreboard.parents_counter(),
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
        let server = Pid::from_raw(self.header.pid);
        if let Some(look) = inspect(server) {
            self.parent = look.condition;
        }
        for process in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            let look = process.pid.and_then(inspect).filter(|look| look.parent == server);
            process.condition = look.map_or(ProcessState::Alive, |look| look.condition);
        }
    }

    /// What was served in each slot, also by workers that are leaving: connections, or bytes.
    pub fn by_slot(&self, count: impl Fn(Served) -> u64) -> Distribution {
        let slots = self.workers.iter().filter(|worker| !worker.leaving).count();
        let mut counts = vec![0_u64; slots];
        for worker in &self.workers {
            if let Some(slot) = counts.get_mut(worker.slot) {
                *slot = slot.saturating_add(count(worker.served));
            }
        }
        Distribution(counts)
    }
}

impl Worker {
    /// What it is doing. A dead process that is not yet reaped is down.
    pub fn state(&self) -> State {
        let process = self.process.as_ref().filter(|process| process.condition != ProcessState::Dead);
        process.map_or(State::Down, |process| process.state)
    }

    /// Has SIGSTOP stopped it?
    pub fn is_stopped(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.condition == ProcessState::Stopped)
    }

    /// The word for it in tables.
    pub fn state_name(&self) -> &'static str {
        match self.process.as_ref().map(|process| process.condition) {
            Some(ProcessState::Stopped) => "stopped",
            Some(ProcessState::Dead) => "dead",
            _ => self.state().name(),
        }
    }
}

impl Process {
    fn new(row: Row, now: Duration) -> Process {
        let (state, since) = row.state();
        Process {
            pid: row.pid(),
            condition: ProcessState::Alive,
            state,
            since: if since.is_zero() { Duration::ZERO } else { now.saturating_sub(since) },
            uptime: now.saturating_sub(row.forked_at()),
            private_counter: row.private_counter(),
            peer: row.peer(),
            credentials: row.credentials(),
        }
    }
}

fn workers(scoreboard: Scoreboard, now: Duration) -> Vec<Worker> {
    let in_place = (0..scoreboard.slots()).map(|slot| {
        let row = scoreboard.in_place(slot);
        Worker {
            slot,
            leaving: false,
            process: row.map(|row| Process::new(row, now)),
            restarts: scoreboard.slot_restarts(slot),
            served: row.map(Row::served).into_iter().chain([scoreboard.reaped_totals(slot)]).sum(),
            last_exit: scoreboard.last_exit(slot),
        }
    });
    let is_in_place = |row: &Row, slot| {
        slot < scoreboard.slots() && scoreboard.in_place(slot).is_some_and(|other| other == *row)
    };
    let leaving = scoreboard.rows_ever().filter_map(|row| {
        let slot = row.slot()?;
        (!is_in_place(&row, slot)).then(|| Worker {
            slot,
            leaving: true,
            process: Some(Process::new(row, now)),
            restarts: row.restarts(),
            served: row.served(),
            last_exit: None,
        })
    });
    in_place.chain(leaving).collect()
}
