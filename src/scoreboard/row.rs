//! One process's row of the scoreboard.

use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::unistd::{Pid, Uid};

use super::Served;
use super::codec::{load_address, store_address};
use crate::sys::clock;
use crate::sys::memory::CacheLine;
use crate::sys::sandbox::Sandbox;

// The numbers of a row's line. First what the parent writes:
/// The slot and 1; 0 is nobody's row.
const SLOT: usize = 0;
const PID: usize = 1;
const BORN: usize = 2;
const RESTARTS: usize = 3;
// then what the worker writes.
/// The state in the lowest bits, since when above: they change as one.
const STATE: usize = 4;
const CONNECTIONS: usize = 5;
const BYTES: usize = 6;
const PRIVATE: usize = 7;
const PEER: std::ops::Range<usize> = 8..11;
/// The user and 1; 0 is not settled yet.
const USER: usize = 11;
const SANDBOX: usize = 12;

const STATE_BITS: u32 = 3;

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

    /// Is there a client?
    pub fn is_busy(self) -> bool {
        matches!(self, State::Reading | State::Writing | State::Draining)
    }

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

/// One process's row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    numbers: &'static [AtomicU64; 16],
    index: usize,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.index == other.index
    }
}

impl Row {
    pub(super) fn new(line: &'static CacheLine, index: usize) -> Row {
        Row { numbers: &line.0, index }
    }

    // What the parent writes; see Scoreboard for when.

    pub(super) fn assign(self, slot: usize, restarts: u64) {
        self.clear();
        self.numbers[RESTARTS].store(restarts, Relaxed);
        self.numbers[BORN].store(clock::now().as_nanos() as u64, Relaxed);
        self.numbers[SLOT].store(slot as u64 + 1, Relaxed);
        self.set_state(State::Starting);
    }

    pub(super) fn clear(self) {
        for number in self.numbers {
            number.store(0, Relaxed);
        }
    }

    /// The parent notes whom it has forked.
    pub fn set_pid(self, pid: Pid) {
        self.numbers[PID].store(pid.as_raw() as u64, Relaxed);
    }

    // What the worker writes.

    /// The worker is in this state from now on, if it wasn't before.
    #[inline]
    pub fn set_state(self, state: State) {
        if self.state().0 != state {
            self.set_state_at(state, clock::now());
        }
    }

    /// The worker has these rights from now on, and no others.
    pub fn set_credentials(self, user: Uid, sandbox: Sandbox) {
        self.numbers[SANDBOX].store(sandbox.bits(), Relaxed);
        self.numbers[USER].store(u64::from(user.as_raw()) + 1, Relaxed);
    }

    /// The worker has accepted a client; so many are in its private counter.
    pub fn accepted(self, peer: Option<SocketAddr>, private: u64) {
        self.add(CONNECTIONS, 1);
        self.numbers[PRIVATE].store(private, Relaxed);
        store_address(&self.numbers[PEER], peer);
    }

    /// The worker has no client any more.
    pub fn clear_peer(self) {
        store_address(&self.numbers[PEER], None);
    }

    /// As [`set_state`](Row::set_state) the state of writing. Only the second time in a row,
    /// when a send has blocked, does it seqlock_read at the clock: most never block, and half
    /// of what the scoreboard costs is the clock.
    #[inline]
    pub fn set_writing(self) {
        match self.state() {
            (State::Writing, Duration::ZERO) => self.set_state_at(State::Writing, clock::now()),
            (State::Writing, _) => {}
            _ => self.set_state_at(State::Writing, Duration::ZERO),
        }
    }

    fn set_state_at(self, state: State, since: Duration) {
        self.numbers[STATE].store((since.as_nanos() as u64) << STATE_BITS | state as u64, Relaxed);
    }

    /// The worker is about to send so many bytes. They count from now on: a client
    /// who has got them shall see them counted, and a process that is killed in
    /// `send` finishes the call first, and nothing after it.
    #[inline]
    pub fn before_send(self, bytes: usize) {
        self.add(BYTES, bytes as u64);
    }

    /// So many of them were not sent after all.
    #[inline]
    pub fn after_send(self, bytes: usize) {
        self.add(BYTES, (bytes as u64).wrapping_neg());
    }

    /// Not in one step, for it need not be: nobody else writes here.
    #[inline]
    fn add(self, which: usize, more: u64) {
        let number = &self.numbers[which];
        number.store(number.load(Relaxed).wrapping_add(more), Relaxed);
    }

    // What all may read.

    pub(super) fn index(self) -> usize {
        self.index
    }

    /// The place that the process fills, or filled; None: the row is nobody's.
    pub fn slot(self) -> Option<usize> {
        (self.numbers[SLOT].load(Relaxed) as usize).checked_sub(1)
    }

    /// The process; None for an instant, until the parent knows it.
    pub fn pid(self) -> Option<Pid> {
        let pid = i32::try_from(self.numbers[PID].load(Relaxed)).ok()?;
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    /// When it was forked, on the [shared clock](clock).
    pub fn born(self) -> Duration {
        Duration::from_nanos(self.numbers[BORN].load(Relaxed))
    }

    /// How many processes have filled its slot before.
    pub fn restarts(self) -> u64 {
        self.numbers[RESTARTS].load(Relaxed)
    }

    /// What the worker is doing, and since when; zero is just now.
    pub fn state(self) -> (State, Duration) {
        let number = self.numbers[STATE].load(Relaxed);
        let state = State::ALL.get(number as usize & ((1 << STATE_BITS) - 1));
        (state.copied().unwrap_or(State::Down), Duration::from_nanos(number >> STATE_BITS))
    }

    /// What this process has served.
    pub fn served(self) -> Served {
        Served {
            connections: self.numbers[CONNECTIONS].load(Relaxed),
            bytes: self.numbers[BYTES].load(Relaxed),
        }
    }

    /// Its private counter, as it has published it.
    pub fn private_counter(self) -> u64 {
        self.numbers[PRIVATE].load(Relaxed)
    }

    /// Its client.
    pub fn peer(self) -> Option<SocketAddr> {
        load_address(&self.numbers[PEER])
    }

    /// Its user's number and its sandbox; None as long as it has not settled.
    pub fn rights(self) -> Option<(u32, Sandbox)> {
        let user = self.numbers[USER].load(Relaxed).checked_sub(1)?;
        Some((user as u32, Sandbox::from_bits(self.numbers[SANDBOX].load(Relaxed))))
    }

    /// Has it a client, as far as it has said?
    pub fn is_busy(self) -> bool {
        self.state().0.is_busy()
    }
}
