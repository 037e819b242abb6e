//! The scoreboard at one moment, as plain data: what tables are made of.

use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;

use crate::monitor::distribution::Distribution;
use crate::scoreboard::{Event, Identity, Phase, Reader, Row, Scoreboard, Served, State};
use crate::sys::process::{ProcessState, inspect};
use crate::sys::sandbox::Sandbox;
use crate::sys::{clock, socket};

/// What a server is doing.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// What it is.
    pub identity: Identity,
    /// Where it is in its life.
    pub phase: Phase,
    /// How long it has lived.
    pub uptime: Duration,
    /// Connections that wait to be accepted, where the system tells.
    pub queue: Option<u64>,
    /// How many can.
    pub queue_limit: u64,
    /// All that was ever served, by whichever process.
    pub served: Served,
    /// How many processes were replaced.
    pub restarts: u64,
    /// The parent's own copy of the private counter.
    pub parents_counter: u64,
    /// Who fills the slots, in their order, then who is leaving.
    pub workers: Vec<Worker>,
    /// What the kernel does with the parent.
    pub parent: ProcessState,
    /// The latest one last.
    pub events: Vec<Event>,
    /// When it was taken, on the clock of the events.
    pub taken: Duration,
}

/// A slot with the process that fills it, or a process that fills none any more.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its slot.
    pub slot: usize,
    /// Is it leaving, and its slot another's or gone?
    pub leaving: bool,
    /// The process; None when the slot is empty.
    pub process: Option<Process>,
    /// How many have filled the slot before.
    pub restarts: u64,
    /// What was served in this slot, by the dead as well; by one who is leaving,
    /// what it has served itself.
    pub served: Served,
    /// How the last process that left the slot has died.
    pub last_exit: Option<String>,
}

/// A worker process.
#[derive(Debug, Clone)]
pub struct Process {
    /// None for an instant after the fork.
    pub pid: Option<Pid>,
    /// What the kernel does with it: what a worker can't say of itself.
    pub condition: ProcessState,
    /// What it is doing.
    pub state: State,
    /// For how long.
    pub since: Duration,
    /// How long it has lived.
    pub uptime: Duration,
    /// Its private counter.
    pub private_counter: u64,
    /// Its client.
    pub peer: Option<SocketAddr>,
    /// Its user's number, and what set_credentials it back besides; None while it starts.
    pub rights: Option<(u32, Sandbox)>,
}

impl Snapshot {
    /// Looks at a server from outside.
    pub fn of(view: &Reader) -> Snapshot {
        Snapshot::take(view.scoreboard, &view.identity)
    }

    /// Looks at the scoreboard of the server `identity`. It costs that server
    /// nothing, and a number that makes no sense is shown as it is.
    pub fn take(scoreboard: Scoreboard, identity: &Identity) -> Snapshot {
        let now = clock::now();
        let queue = socket::accept_queue(identity.pid, identity.inode);
        let mut snapshot = scoreboard.seqlock_read(|| {
            let workers = workers(scoreboard, now);
            // Summed up from what was read once: they go on counting meanwhile.
            let served =
                workers.iter().map(|worker| worker.served).chain([scoreboard.past_of_removed_slots()]);
            Snapshot {
                identity: identity.clone(),
                phase: scoreboard.phase(),
                uptime: now.saturating_sub(Duration::from_nanos(identity.started)),
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
        snapshot.ask_the_kernel();
        snapshot
    }

    /// What no process can say of itself: that it is stopped, or dead.
    fn ask_the_kernel(&mut self) {
        let server = Pid::from_raw(self.identity.pid);
        if let Some(seqlock_read) = inspect(server) {
            self.parent = seqlock_read.condition;
        }
        for process in self.workers.iter_mut().filter_map(|worker| worker.process.as_mut()) {
            let seqlock_read =
                process.pid.and_then(inspect).filter(|seqlock_read| seqlock_read.parent == server);
            process.condition =
                seqlock_read.map_or(ProcessState::Alive, |seqlock_read| seqlock_read.condition);
        }
    }

    /// What was served in each slot, by those who are leaving as well: connections,
    /// or bytes.
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
    /// What it is doing. Who is dead and not yet reaped is down.
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
            uptime: now.saturating_sub(row.born()),
            private_counter: row.private_counter(),
            peer: row.peer(),
            rights: row.rights(),
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
            served: row.map(Row::served).into_iter().chain([scoreboard.past(slot)]).sum(),
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
