//! The scoreboard: what all processes can see of each other.
//!
//! It lies in memory that was mapped shared before the first fork, a row a
//! process. A worker counts in its own row, with atomics and without a system
//! call; the parent writes whom the row belongs to. A worker that is killed at
//! any instant leaves it readable. The parent signals only pids of its own
//! book-keeping, never one that it reads here.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use nix::unistd::Pid;

use crate::cli::MAX_WORKERS;
use crate::sys::memory::{self, Line};

/// A row for each worker, and one for each that finishes its last client while
/// its successor serves already.
const ROWS: usize = 2 * MAX_WORKERS as usize;

// The numbers of a row's line, in order.
const STATE: usize = 0;
const CONNECTIONS: usize = 1;
const BYTES: usize = 2;
const PID: usize = 3;
const SLOT: usize = 4;
const RESTARTS: usize = 5;

/// The only number of the header, the line before the rows.
const DRAINING: usize = 0;

/// What a worker is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No process is here.
    Down,
    /// Forked, not yet in `accept`.
    Starting,
    /// Blocked in `accept`.
    Idle,
    /// Blocked in `recv`, or about to be.
    Reading,
    /// Blocked in `send`, or about to be.
    Writing,
    /// Finishing with its last clients.
    Draining,
}

impl State {
    const ALL: [State; 6] =
        [State::Down, State::Starting, State::Idle, State::Reading, State::Writing, State::Draining];

    /// The word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            State::Down => "down",
            State::Starting => "starting",
            State::Idle => "idle",
            State::Reading => "reading",
            State::Writing => "writing",
            State::Draining => "draining",
        }
    }
}

/// All rows, and what concerns the whole server.
#[derive(Debug, Clone, Copy)]
pub struct Scoreboard(&'static [Line]);

impl Scoreboard {
    /// Maps it, before the first fork.
    ///
    /// # Errors
    /// `ENOMEM` when the system has no room for a megabyte.
    pub fn new() -> nix::Result<Scoreboard> {
        memory::share(1 + ROWS).map(Scoreboard)
    }

    /// All rows, those of nobody included. The parent keeps them, and gives
    /// each worker one.
    pub fn rows(self) -> impl DoubleEndedIterator<Item = Row> {
        self.0[1..].iter().map(Row)
    }

    /// The parent has begun to shut the server down.
    pub fn start_draining(self) {
        self.0[0].0[DRAINING].store(1, Relaxed);
    }

    /// Is the whole server shutting down, and not just one worker leaving?
    pub fn is_draining(self) -> bool {
        self.0[0].0[DRAINING].load(Relaxed) == 1
    }
}

/// One process's row.
#[derive(Debug, Clone, Copy)]
pub struct Row(&'static Line);

impl Row {
    fn number(self, which: usize) -> &'static AtomicU64 {
        &self.0.0[which]
    }

    /// The parent gives the row to the worker that it is about to fork, the
    /// one after `restarts` others in `slot`.
    pub fn prepare(self, slot: usize, restarts: u64) {
        self.number(CONNECTIONS).store(0, Relaxed);
        self.number(BYTES).store(0, Relaxed);
        self.number(SLOT).store(slot as u64, Relaxed);
        self.number(RESTARTS).store(restarts, Relaxed);
        self.enter(State::Starting);
    }

    /// The parent notes whom it has forked, or that nobody is here any more.
    pub fn belongs_to(self, pid: Option<Pid>) {
        self.number(PID).store(pid.map_or(0, |pid| pid.as_raw() as u64), Relaxed);
        if pid.is_none() {
            self.enter(State::Down);
        }
    }

    /// The worker does something else from now on.
    #[inline]
    pub fn enter(self, state: State) {
        self.number(STATE).store(state as u64, Relaxed);
    }

    /// The worker has accepted a client.
    pub fn count_connection(self) {
        self.number(CONNECTIONS).fetch_add(1, Relaxed);
    }

    /// The worker has sent so many bytes back.
    #[inline]
    pub fn count_bytes(self, bytes: usize) {
        self.number(BYTES).fetch_add(bytes as u64, Relaxed);
    }

    /// What the worker is doing.
    pub fn state(self) -> State {
        let number = self.number(STATE).load(Relaxed) as usize;
        State::ALL.get(number).copied().unwrap_or(State::Down)
    }

    /// Clients that this process has accepted.
    pub fn connections(self) -> u64 {
        self.number(CONNECTIONS).load(Relaxed)
    }

    /// Bytes that this process has sent back.
    pub fn bytes(self) -> u64 {
        self.number(BYTES).load(Relaxed)
    }

    /// The process, where there is one.
    pub fn pid(self) -> Option<Pid> {
        match self.number(PID).load(Relaxed) {
            0 => None,
            pid => Some(Pid::from_raw(pid as i32)),
        }
    }

    /// The place that the process fills.
    pub fn slot(self) -> u64 {
        self.number(SLOT).load(Relaxed)
    }

    /// How many processes have filled that place before.
    pub fn restarts(self) -> u64 {
        self.number(RESTARTS).load(Relaxed)
    }
}
