//! One worker's row of the scoreboard. The parent assigns and clears it, by its
//! [`Writer`](super::Writer), and the worker counts in it, by a [`RowWriter`]; all processes
//! read it, as a [`Row`].
//!
//! A number more is declared in `layout`, written by [`RowWriter`] and read by [`Row`].

use std::net::SocketAddr;
use std::ops::Deref;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use nix::unistd::{Pid, Uid};

use super::codec::{load_address, store_address};
use super::layout::{NO_MORE, RowNumbers, STOPPED};
use super::{Scoreboard, Served};
use crate::sys::clock;
use crate::sys::sandbox::Sandbox;

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
    /// Finishing its last connections.
    Draining,
    /// With one client at least, where a worker may have several.
    Serving,
}

impl State {
    /// All states, each at its number.
    pub(crate) const ALL: [State; 7] = {
        use State::*;
        [Down, Starting, Idle, Reading, Writing, Draining, Serving]
    };

    /// Is there a connection?
    pub fn is_busy(self) -> bool {
        matches!(self, State::Reading | State::Writing | State::Serving | State::Draining)
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
            State::Serving => "serving",
        }
    }
}

/// A worker's row, to be read.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    pub(super) numbers: &'static RowNumbers,
    pub(super) index: usize,
}

impl PartialEq for Row {
    fn eq(&self, other: &Row) -> bool {
        self.index == other.index
    }
}

impl Row {
    /// The slot that the worker fills, or filled. None: the row is free.
    pub fn slot(self) -> Option<usize> {
        ((self.numbers.slot.load(Relaxed) & !STOPPED) as usize).checked_sub(1)
    }

    /// The process. None for an instant after the fork, until the parent has noted it.
    pub fn pid(self) -> Option<Pid> {
        let pid = i32::try_from(self.numbers.pid.load(Relaxed)).ok()?;
        (pid > 0).then(|| Pid::from_raw(pid))
    }

    /// When it was forked, on the [shared clock](clock).
    pub fn forked_at(self) -> Duration {
        Duration::from_nanos(self.numbers.forked_at.load(Relaxed))
    }

    /// How many workers of its slot had replaced another when it was forked, with itself.
    pub fn restarts(self) -> u64 {
        self.numbers.restarts.load(Relaxed)
    }

    /// What the worker is doing, and since when; zero is just now.
    pub fn state(self) -> (State, Duration) {
        let number = self.numbers.state.load(Relaxed);
        let state = State::ALL.get(number as usize & ((1 << STATE_BITS) - 1));
        (state.copied().unwrap_or(State::Down), Duration::from_nanos(number >> STATE_BITS))
    }

    /// Has it a connection, as it has recorded itself?
    pub fn is_busy(self) -> bool {
        self.clients() > 0
    }

    /// What this worker has served.
    pub fn served(self) -> Served {
        Served {
            connections: self.numbers.connections.load(Relaxed),
            bytes: self.numbers.bytes.load(Relaxed),
            bad_headers: self.numbers.bad_headers.load(Relaxed),
        }
    }

    /// Its private counter, as the worker has published it.
    pub fn private_counter(self) -> u64 {
        self.numbers.private_counter.load(Relaxed)
    }

    /// Its careless counter, as the worker has published it.
    pub fn careless_counter(self) -> u64 {
        self.numbers.careless_counter.load(Relaxed)
    }

    /// How many clients it has now.
    pub fn clients(self) -> u64 {
        self.numbers.clients.load(Relaxed)
    }

    /// Has it room for one more client, or will it when it has started?
    pub fn has_room(self) -> bool {
        let places = self.numbers.places.load(Relaxed);
        let is_stopped = self.numbers.slot.load(Relaxed) & STOPPED != 0;
        let has_place = self.clients() < places && places != NO_MORE;
        !is_stopped && (has_place || self.state().0 == State::Starting)
    }

    /// Is it to accept no more?
    pub fn is_retired(self) -> bool {
        self.numbers.places.load(Relaxed) == NO_MORE
    }

    /// The address of its client. None: it has none, or several.
    pub fn peer(self) -> Option<SocketAddr> {
        load_address(&self.numbers.peer)
    }

    /// The address of the balancer through which that client comes, if a PROXY header said so.
    pub fn via(self) -> Option<SocketAddr> {
        load_address(&self.numbers.via)
    }

    /// Its user's number and its sandbox. None until the worker has set them.
    pub fn credentials(self) -> Option<(u32, Sandbox)> {
        let user = self.numbers.user.load(Relaxed).checked_sub(1)?;
        Some((user as u32, Sandbox(self.numbers.sandbox.load(Relaxed))))
    }
}

/// A worker's access to its own row. It also reads it, as a [`Row`].
#[derive(Debug, Clone, Copy)]
pub struct RowWriter(pub(super) Row);

impl Deref for RowWriter {
    type Target = Row;

    fn deref(&self) -> &Row {
        &self.0
    }
}

impl RowWriter {
    /// The worker is in this state from now on, if it wasn't before.
    #[inline]
    pub fn set_state(self, state: State) {
        if self.state().0 != state {
            self.set_state_at(state, clock::now());
        }
    }

    /// As [`set_state`](RowWriter::set_state) with [`State::Writing`]. It reads the clock only
    /// at the second call in a row, when a send has blocked: most sends never block, and
    /// half of what the scoreboard costs is the clock.
    #[inline]
    pub fn set_writing(self) {
        match self.state() {
            (State::Writing, Duration::ZERO) => self.set_state_at(State::Writing, clock::now()),
            (State::Writing, _) => {}
            _ => self.set_state_at(State::Writing, Duration::ZERO),
        }
    }

    fn set_state_at(self, state: State, since: Duration) {
        self.numbers.state.store((since.as_nanos() as u64) << STATE_BITS | state as u64, Relaxed);
    }

    /// The worker has this user and this sandbox from now on.
    pub fn set_credentials(self, user: Uid, sandbox: Sandbox) {
        self.numbers.sandbox.store(sandbox.0, Relaxed);
        self.numbers.user.store(u64::from(user.as_raw()) + 1, Relaxed);
    }

    /// The worker has accepted a connection.
    pub fn count_connection(self) {
        add(&self.numbers.connections, 1);
    }

    /// A connection of the worker was closed because of its PROXY header.
    pub fn count_bad_header(self) {
        add(&self.numbers.bad_headers, 1);
    }

    /// The worker has so many clients from now on; the address of the only one, and of the
    /// balancer through which that one comes.
    pub fn set_clients(self, clients: usize, only: Option<SocketAddr>, via: Option<SocketAddr>) {
        self.numbers.clients.store(clients as u64, Relaxed);
        store_address(&self.numbers.peer, only);
        store_address(&self.numbers.via, via);
    }

    /// The worker can have so many clients.
    pub fn set_places(self, places: usize) {
        self.numbers.places.store(places as u64, Relaxed);
    }

    /// The worker is to accept no more.
    pub fn retire(self) {
        self.numbers.places.store(NO_MORE, Relaxed);
    }

    /// Has no worker room for one more client, and is this worker to report it? The parent asks
    /// for one report at a time: it may be stopped, and the pipe must not fill. Call it when
    /// the worker has got a client.
    pub fn is_to_report_full(self, scoreboard: Scoreboard) -> bool {
        let wants_full = &scoreboard.numbers.control.wants_full;
        // Of two workers that take the last two places at once, one at least must see both.
        fence(SeqCst);
        wants_full.load(Relaxed) != 0 && !scoreboard.has_room() && wants_full.swap(0, Relaxed) != 0
    }

    /// Its private counter has this value.
    pub fn set_private_counter(self, value: u64) {
        self.numbers.private_counter.store(value, Relaxed);
    }

    /// Its careless counter has this value.
    pub fn set_careless_counter(self, value: u64) {
        self.numbers.careless_counter.store(value, Relaxed);
    }

    /// The worker is about to send so many bytes. They are counted before the call: a
    /// client that has received them must find them counted, and a process that is killed
    /// in `send` finishes the call, and executes nothing after it.
    #[inline]
    pub fn before_send(self, bytes: usize) {
        add(&self.numbers.bytes, bytes as u64);
    }

    /// So many of those bytes were not sent.
    #[inline]
    pub fn after_send(self, unsent: usize) {
        if unsent > 0 {
            add(&self.numbers.bytes, (unsent as u64).wrapping_neg());
        }
    }
}

/// In one atomic step: a worker may have several threads.
#[inline]
fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Relaxed);
}
