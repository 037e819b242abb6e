//! The scoreboard at one moment, as plain data: what tables are made of.

use std::net::SocketAddr;
use std::time::Duration;

use nix::unistd::Pid;

use crate::scoreboard::{Event, Identity, Phase, Row, Scoreboard, Served, State};
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
    /// The latest one last.
    pub events: Vec<Happening>,
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
}

/// An event, and how long ago it was.
#[derive(Debug, Clone)]
pub struct Happening {
    /// How long ago.
    pub ago: Duration,
    /// As the log has it.
    pub text: String,
}

impl Snapshot {
    /// Looks at the scoreboard of the server `identity`. It costs that server
    /// nothing, and a number that makes no sense is shown as it is.
    pub fn take(scoreboard: Scoreboard, identity: &Identity) -> Snapshot {
        let now = clock::now();
        let queue = socket::accept_queue(identity.pid, identity.inode);
        scoreboard.look(|| {
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
                events: scoreboard.events().into_iter().map(|event| Happening::new(event, now)).collect(),
            }
        })
    }
}

impl Worker {
    /// What its state is called.
    pub fn state(&self) -> State {
        self.process.as_ref().map_or(State::Down, |process| process.state)
    }
}

impl Process {
    fn new(row: Row, now: Duration) -> Process {
        let (state, since) = row.state();
        Process {
            pid: row.pid(),
            state,
            since: now.saturating_sub(since),
            uptime: now.saturating_sub(row.born()),
            private_counter: row.private_counter(),
            peer: row.peer(),
        }
    }
}

impl Happening {
    fn new(event: Event, now: Duration) -> Happening {
        Happening { ago: now.saturating_sub(event.time), text: event.text }
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
