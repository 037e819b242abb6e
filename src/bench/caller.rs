//! One of the clients that measure: a thread with one connection at a time.
//!
//! The life of a message: it is due ([`Caller::begin`]), is sent, in as many sends as
//! it takes, comes back in as many recvs, is compared with what was sent, and counted
//! with the time from its beginning to its last byte ([`Caller::take_back`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::ControlFlow::{self, Break, Continue};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::cli::Mode;
use crate::connection::{Connection, Kind, Trouble};

/// A message up to this length fits into any buffers on the way, and can be sent by
/// a send that blocks before anything is received.
const SMALL: usize = 16 * 1024;

/// What one recv takes at the most, in bytes.
const CHUNK: usize = 64 * 1024;

/// A stream is no further ahead of its answers, in bytes: far more than the buffers
/// on the way hold, and less than would hurt where a server only reads.
const MOST_ON_THE_WAY: usize = 64 * 1024 * 1024;

/// A client.
pub struct Caller<'a> {
    run: &'a Shared,
    /// Which of them it is, from 0 on.
    index: u64,
    /// Messages that it may still begin.
    left: u64,
    /// Messages that it has begun.
    begun: u64,
    /// The messages on the way, the oldest first: since when the latency of each counts.
    on_the_way: VecDeque<Instant>,
    /// How much of the oldest has come back, in bytes.
    returned: usize,
    /// Since when nothing has come back of what is due.
    since: Instant,
    /// The address at which the server has answered before.
    server: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl<'a> Caller<'a> {
    /// A client that sends up to `share` messages, or as many as there is time for.
    pub fn new(run: &'a Shared, index: u64, share: Option<u64>) -> Caller<'a> {
        // A byte more than is due: should it come, it will be seen.
        let chunk = if run.mode == Mode::Stream { CHUNK } else { CHUNK.min(run.messages.size() + 1) };
        Caller {
            run,
            index,
            left: share.unwrap_or(u64::MAX),
            begun: 0,
            on_the_way: VecDeque::new(),
            returned: 0,
            since: Instant::now(),
            server: None,
            buffer: vec![0; chunk],
        }
    }

    /// Does all that the run asks of one client.
    pub fn call(mut self) {
        // Connections that are kept are all open before the clock starts.
        let mut opened = (self.run.mode != Mode::Connect).then(|| self.connect());
        self.run.gate.wait();
        self.run.start.get_or_init(Instant::now);
        loop {
            if self.run.mode == Mode::Connect && !self.begin() {
                return;
            }
            let connection = opened.take().unwrap_or_else(|| self.connect());
            match connection.and_then(|connection| self.talk(connection)) {
                Ok(()) if self.run.mode == Mode::Connect => {}
                Ok(()) => return,
                Err(trouble) => {
                    if self.failed(trouble).is_break() {
                        return;
                    }
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Connection, Trouble> {
        let addresses = self.server.as_ref().map_or(self.run.addresses.as_slice(), std::slice::from_ref);
        let connection = Connection::open(addresses, self.run.timeout)?;
        if self.server.replace(connection.peer).is_none() {
            let here = connection.peer.ip().is_loopback() || connection.peer.ip() == connection.local.ip();
            self.run.tally().is_on_this_machine = here;
        }
        Ok(connection)
    }

    /// Sends messages and takes them back, as the mode has it, until there is none
    /// left for this connection.
    fn talk(&mut self, mut connection: Connection) -> Result<(), Trouble> {
        let run = self.run;
        let both_ways = run.mode == Mode::Stream || run.messages.size() > SMALL;
        if both_ways {
            connection.never_block()?;
        }
        // With a connection for each message, `call` has begun it before connecting.
        let mut unsent: &[u8] = if self.on_the_way.is_empty() { &[] } else { self.newest() };
        loop {
            if unsent.is_empty() && self.may_begin() && self.begin() {
                unsent = self.newest();
            }
            let sent = if unsent.is_empty() { 0 } else { connection.send(unsent)? };
            unsent = &unsent[sent..];
            if sent > 0 {
                continue; // There may be more, and room for it.
            }
            if self.on_the_way.is_empty() {
                break;
            }
            if both_ways {
                connection.wait(!unsent.is_empty(), self.since)?;
            }
            self.take_back(&mut connection)?;
        }
        if run.mode == Mode::Connect { Ok(()) } else { self.part_from(connection) }
    }

    /// One recv, and what it says of the messages on the way.
    fn take_back(&mut self, connection: &mut Connection) -> Result<(), Trouble> {
        let Some(length) = connection.receive(&mut self.buffer)? else { return Ok(()) };
        if length == 0 {
            return Err(Trouble::lost(connection));
        }
        self.since = Instant::now();
        if length > self.on_the_way.len() * self.run.messages.size() - self.returned {
            return Err(Trouble::too_much(connection));
        }
        let mut start = 0;
        while let Some(from) = self.on_the_way.front()
            && start < length
        {
            let oldest = self.oldest();
            let end = length.min(start + oldest.len() - self.returned);
            let expected = &oldest[self.returned..][..end - start];
            connection.check(expected, &self.buffer[start..end])?;
            self.returned += end - start;
            if self.returned == oldest.len() {
                self.run.tally().came_back(self.since.saturating_duration_since(*from), self.since);
                self.on_the_way.pop_front();
                self.returned = 0;
            }
            start = end;
        }
        Ok(())
    }

    /// Closes first, and sees that nothing comes that nobody has sent.
    fn part_from(&mut self, mut connection: Connection) -> Result<(), Trouble> {
        connection.half_close()?;
        let since = Instant::now();
        loop {
            connection.wait(false, since)?;
            match connection.receive(&mut self.buffer)? {
                None => {}
                Some(0) => return Ok(()),
                Some(_) => return Err(Trouble::too_much(&connection)),
            }
        }
    }

    /// Has this connection room for another message?
    fn may_begin(&self) -> bool {
        match self.run.mode {
            Mode::Keep => self.on_the_way.is_empty(),
            Mode::Connect => false,
            Mode::Stream => self.on_the_way.len() * self.run.messages.size() < MOST_ON_THE_WAY,
        }
    }

    /// Begins another message as soon as it is due, unless there is none left.
    fn begin(&mut self) -> bool {
        let start = *self.run.start.get().expect("the clock has started");
        let deadline = self.run.duration.map(|duration| start + duration);
        let is_over = |now: Instant| deadline.is_some_and(|deadline| now >= deadline);
        let mut now = Instant::now();
        let mut from = now;
        if let Some(due) = self.due(start) {
            if is_over(due) {
                return false;
            }
            // Who is late waits for the server, and that counts. If we are early, and
            // oversleep, it isn't the server's fault.
            from = due;
            if now < due {
                thread::sleep(due - now);
                now = Instant::now();
                from = now;
            }
        }
        if self.left == 0 || is_over(now) {
            return false;
        }
        if self.on_the_way.is_empty() {
            self.since = now;
        }
        self.on_the_way.push_back(from);
        self.begun += 1;
        self.left -= 1;
        true
    }

    /// When the next message is to be sent: with a rate, the callers take turns.
    fn due(&self, start: Instant) -> Option<Instant> {
        let rate = self.run.rate?;
        let turn = self.begun * u64::from(self.run.connections) + self.index;
        Some(start + Duration::from_secs_f64(turn as f64 / f64::from(rate)))
    }

    /// Counts what has failed. Break: it would only fail again.
    fn failed(&mut self, trouble: Trouble) -> ControlFlow<()> {
        let gives_up = matches!(trouble.kind, Kind::Refused | Kind::Timeout | Kind::Other);
        self.run.tally().failed(self.on_the_way.len().max(1) as u64, trouble);
        self.on_the_way.clear();
        self.returned = 0;
        let deadline = self.run.duration.map(|duration| self.run.start.get().map(|start| *start + duration));
        let is_over = deadline.flatten().is_some_and(|deadline| Instant::now() >= deadline);
        if gives_up || is_over || self.left == 0 { Break(()) } else { Continue(()) }
    }

    /// The message that was begun last.
    fn newest(&self) -> &'a [u8] {
        self.message(self.begun - 1)
    }

    /// The message that comes back next.
    fn oldest(&self) -> &'a [u8] {
        self.message(self.begun - self.on_the_way.len() as u64)
    }

    /// Each caller begins with another one, far from its neighbours': a server that
    /// mixes them up is found out.
    fn message(&self, number: u64) -> &'a [u8] {
        self.run.messages.get(self.index * 97 + number)
    }
}
