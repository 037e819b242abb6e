//! One of the clients that measure: a thread with one connection at a time.
//!
//! The life of a message: it is due (`begin`), is sent, in as many sends as
//! it takes, comes back in as many recvs, is compared with what was sent, and counted
//! with the time from its beginning to its last byte (`take_back`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow::{self, Break, Continue};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::client::stream::{CHUNK, ClientError, Connection, Kind, Limit, MAX_IN_FLIGHT};
use crate::config::{BenchOptions, Mode};

/// A message up to this length, in bytes, fits into any buffers on the way, and can be
/// sent by a send that blocks before anything is received.
const SMALL: usize = 16 * 1024;

/// What a message on the way costs at the least, as if it were so many bytes.
const BOOKKEEPING: usize = 64;

/// A client.
pub struct BenchClient<'a> {
    shared: &'a Shared,
    /// ServerSelector of them it is, from 0 on.
    index: u64,
    /// Payloads that it may still begin.
    left: u64,
    /// Payloads that it has begun.
    begun: u64,
    /// The messages on the way, the oldest first: since when the latency of each counts.
    in_flight: VecDeque<Instant>,
    /// How much of the oldest has come back, in bytes.
    returned: usize,
    /// Since when nothing has come back of what is due.
    since: Instant,
    /// The address at which the server has answered before.
    server: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl<'a> BenchClient<'a> {
    /// A client that sends up to `share` messages, or as many as there is time for.
    pub fn new(shared: &'a Shared, index: u64, share: Option<u64>) -> BenchClient<'a> {
        // A byte more than is due: should it come, it will be seen.
        let BenchOptions { mode, .. } = shared.options;
        let chunk = if mode == Mode::Stream { CHUNK } else { CHUNK.min(shared.messages.size() + 1) };
        BenchClient {
            shared,
            index,
            left: share.unwrap_or(u64::MAX),
            begun: 0,
            in_flight: VecDeque::new(),
            returned: 0,
            since: Instant::now(),
            server: None,
            buffer: vec![0; chunk],
        }
    }

    /// Does all that is asked of one client.
    pub fn call(mut self) {
        let is_anew = self.shared.options.mode == Mode::Connect;
        // Connections that are kept are all open before the clock starts.
        let mut opened = (!is_anew).then(|| self.connect());
        self.shared.barrier.wait();
        self.shared.start.get_or_init(Instant::now);
        loop {
            if is_anew && !self.begin() {
                return;
            }
            let connection = opened.take().unwrap_or_else(|| self.connect());
            match connection.and_then(|connection| self.talk(connection)) {
                // One message was all: the connection is closed.
                Ok(_) if is_anew => {}
                Ok(connection) => {
                    if let Err(error) = self.part_from(connection) {
                        // All had come back: a byte too much is an error still.
                        let messages = u64::from(error.kind == Kind::Wrong);
                        self.shared.stats().failed(messages, error);
                    }
                    return;
                }
                Err(error) => {
                    if self.failed(error).is_break() {
                        return;
                    }
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Connection, ClientError> {
        let addresses = self.server.as_ref().map_or(self.shared.addresses.as_slice(), std::slice::from_ref);
        let (timeout, limit) = (self.shared.options.timeout, self.shared.limit());
        let connection = Connection::open_by(addresses, timeout, limit.map(Limit::deadline))?;
        if self.server.replace(connection.peer).is_none() {
            let here = connection.peer.ip().is_loopback() || connection.peer.ip() == connection.local.ip();
            self.shared.stats().server = here.then_some(connection.peer);
        }
        Ok(connection)
    }

    /// Sends messages and takes them back, as the mode has it, until there is none
    /// left for this connection; gives it back then.
    fn talk(&mut self, mut connection: Connection) -> Result<Connection, ClientError> {
        let both_ways = self.shared.options.mode == Mode::Stream || self.shared.messages.size() > SMALL;
        if both_ways {
            connection.never_block()?;
        }
        let opened = Instant::now();
        if let Some(limit) = self.shared.limit() {
            connection.set_limit(limit)?;
        }
        // With a connection for each message, `call` has begun it before connecting.
        let mut unsent: &[u8] = if self.in_flight.is_empty() { &[] } else { self.newest() };
        loop {
            if unsent.is_empty() && self.may_begin() && self.begin() {
                unsent = self.newest();
            }
            let sent = if unsent.is_empty() { 0 } else { connection.send(unsent)? };
            unsent = &unsent[sent..];
            if self.in_flight.is_empty() {
                return Ok(connection);
            }
            connection.hurry(self.since.max(opened))?;
            let is_overdue = both_ways && connection.is_overdue(self.since);
            if !self.take_back(&mut connection)? {
                if is_overdue {
                    return Err(ClientError::overdue(&connection));
                }
                if sent == 0 {
                    connection.wait(!unsent.is_empty(), self.since)?;
                }
            }
        }
    }

    /// One recv, and what it says of the messages on the way. False: nothing was there.
    fn take_back(&mut self, connection: &mut Connection) -> Result<bool, ClientError> {
        let Some(length) = connection.receive(&mut self.buffer)? else { return Ok(false) };
        if length == 0 {
            return Err(ClientError::lost(connection));
        }
        self.since = Instant::now();
        if length > self.in_flight.len() * self.shared.messages.size() - self.returned {
            return Err(ClientError::too_much(connection));
        }
        let mut start = 0;
        while let Some(from) = self.in_flight.front()
            && start < length
        {
            let oldest = self.oldest();
            let end = length.min(start + oldest.len() - self.returned);
            let expected = &oldest[self.returned..][..end - start];
            connection.check(expected, &self.buffer[start..end])?;
            self.returned += end - start;
            if self.returned == oldest.len() {
                self.shared.stats().record(self.since.saturating_duration_since(*from), self.since);
                self.in_flight.pop_front();
                self.returned = 0;
            }
            start = end;
        }
        Ok(true)
    }

    /// Closes first, and sees whether the server closes as well, without sending more.
    fn part_from(&mut self, mut connection: Connection) -> Result<(), ClientError> {
        connection.half_close()?;
        let since = Instant::now();
        connection.hurry(since)?;
        loop {
            let is_overdue = connection.is_overdue(since);
            match connection.receive(&mut self.buffer)? {
                None if is_overdue => return Err(ClientError::overdue(&connection)),
                None => connection.wait(false, since)?,
                Some(0) => return Ok(()),
                Some(_) => return Err(ClientError::too_much(&connection)),
            }
        }
    }

    /// Has this connection room for another message?
    fn may_begin(&self) -> bool {
        let cost = self.shared.messages.size().max(BOOKKEEPING);
        match self.shared.options.mode {
            Mode::Keep => self.in_flight.is_empty(),
            Mode::Connect => false,
            Mode::Stream => self.in_flight.len() * cost < MAX_IN_FLIGHT,
        }
    }

    /// Begins another message as soon as it is due, unless there is none left.
    fn begin(&mut self) -> bool {
        let now = Instant::now();
        let due = self.due(now);
        if !self.has_more(due) {
            return false;
        }
        // Who is late has waited for the server, and that counts. If we are early, and
        // oversleep, it isn't the server's fault.
        let from = if due > now {
            thread::sleep(due - now);
            Instant::now()
        } else {
            due
        };
        if self.in_flight.is_empty() {
            self.since = from.max(now);
        }
        self.in_flight.push_back(from);
        self.begun += 1;
        self.left -= 1;
        true
    }

    /// When the next message is to be sent: now, or with a rate, as the callers take
    /// turns.
    fn due(&self, now: Instant) -> Instant {
        let BenchOptions { rate, connections, .. } = self.shared.options;
        let turn = self.begun * u64::from(connections) + self.index;
        let after = |rate| Duration::from_secs_f64(turn as f64 / f64::from(rate));
        rate.map_or(now, |rate| self.start() + after(rate))
    }

    /// Is there another message for this caller, which is `due` then?
    fn has_more(&self, due: Instant) -> bool {
        self.left > 0 && self.shared.limit().is_none_or(|limit| due < limit.end)
    }

    fn start(&self) -> Instant {
        *self.shared.start.get().expect("the clock has started")
    }

    /// Counts what has failed. Break: there is nothing left to do, or it would only fail
    /// again.
    fn failed(&mut self, error: ClientError) -> ControlFlow<()> {
        let gives_up = matches!(error.kind, Kind::Refused | Kind::Timeout | Kind::Other);
        self.shared.stats().failed(self.in_flight.len().max(1) as u64, error);
        self.in_flight.clear();
        self.returned = 0;
        if gives_up || !self.has_more(self.due(Instant::now())) { Break(()) } else { Continue(()) }
    }

    /// The message that was begun last.
    fn newest(&self) -> &'a [u8] {
        self.message(self.begun - 1)
    }

    /// The message that comes back next.
    fn oldest(&self) -> &'a [u8] {
        self.message(self.begun - self.in_flight.len() as u64)
    }

    /// Each caller begins with another one, as far from the others' as there are
    /// messages: a server that mixes them up is found out.
    fn message(&self, number: u64) -> &'a [u8] {
        let Shared { messages, options, .. } = self.shared;
        let step = (messages.number() / u64::from(options.connections)).max(1);
        messages.get(self.index * step + number)
    }
}
