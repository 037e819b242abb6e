//! One of the clients that measure: a thread with one connection at a time.
//!
//! The life of a message: it is due, and begins (`begin`). It is sent, in as many sends
//! as it takes. It comes back, in as many recvs, is compared with what was sent, and is
//! recorded with the time from its beginning to its last byte (`take_back`).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use crate::client::stream::{CHUNK, MAX_IN_FLIGHT};
use crate::client::{ClientError, Kind, Stream};
use crate::config::{BenchOptions, Mode};

/// A message up to this length, in bytes, fits into any buffers on the way, and can be
/// sent by a send that blocks before anything is received.
const SMALL: usize = 16 * 1024;

/// What a message in flight costs at the least, as if it were so many bytes.
const BOOKKEEPING: usize = 64;

/// A client.
pub(super) struct BenchClient<'a> {
    shared: &'a Shared,
    /// Which of the clients it is, from 0 on.
    index: u64,
    /// How many messages it may begin.
    share: u64,
    /// How many messages it has begun.
    begun: u64,
    /// The messages in flight, the oldest first: since when the latency of each counts.
    in_flight: VecDeque<Instant>,
    /// How much of the oldest has come back, in bytes.
    returned: usize,
    /// When a byte last came back, or the first of those that are due began.
    since: Instant,
    /// The address at which the server has answered before.
    server: Option<SocketAddr>,
    buffer: Vec<u8>,
}

impl<'a> BenchClient<'a> {
    /// A client that sends up to `share` messages, or as many as there is time for.
    pub(super) fn new(shared: &'a Shared, index: u64, share: Option<u64>) -> BenchClient<'a> {
        let chunk = match shared.options.mode {
            Mode::Stream => CHUNK,
            // A byte more than is due: if the server sends one too many, it is seen.
            _ => CHUNK.min(shared.options.size + 1),
        };
        BenchClient {
            shared,
            index,
            share: share.unwrap_or(u64::MAX),
            begun: 0,
            in_flight: VecDeque::new(),
            returned: 0,
            since: Instant::now(),
            server: None,
            buffer: vec![0; chunk],
        }
    }

    /// Sends all messages of this client, and takes them back.
    pub(super) fn run(mut self) {
        let reconnects = self.shared.options.mode == Mode::Connect;
        // Connections that are kept are all open before the clock starts.
        let mut opened = (!reconnects).then(|| self.connect());
        self.shared.barrier.wait();
        self.shared.start.get_or_init(Instant::now);
        loop {
            if reconnects && !self.begin() {
                return;
            }
            let stream = opened.take().unwrap_or_else(|| self.connect());
            match stream.and_then(|stream| self.exchange(stream)) {
                // One message was all: the connection is closed.
                Ok(_) if reconnects => {}
                Ok(stream) => return self.close(stream),
                Err(error) => {
                    if !self.recovers_from(error) {
                        return;
                    }
                }
            }
        }
    }

    fn connect(&mut self) -> Result<Stream, ClientError> {
        let addresses = self.server.as_ref().map_or(self.shared.addresses.as_slice(), std::slice::from_ref);
        let stream = Stream::open(addresses, self.shared.options.server.timeout, self.shared.limit())?;
        if self.server.replace(stream.peer).is_none() {
            let is_local = stream.peer.ip().is_loopback() || stream.peer.ip() == stream.local.ip();
            self.shared.stats().server = is_local.then_some(stream.peer);
        }
        Ok(stream)
    }

    /// Sends messages and takes them back, as the mode has it, until there is none left
    /// for this connection, and gives the connection back.
    fn exchange(&mut self, mut stream: Stream) -> Result<Stream, ClientError> {
        if self.shared.options.mode == Mode::Stream || self.shared.options.size > SMALL {
            stream.set_nonblocking()?;
        }
        // If the connection was opened before the clock started, its limit was too early.
        stream.limit = self.shared.limit();
        self.since = Instant::now();
        // With a connection for each message, `run` has begun it before connecting.
        let mut unsent: &[u8] = if self.in_flight.is_empty() { &[] } else { self.newest() };
        loop {
            if unsent.is_empty() && self.has_room() && self.begin() {
                unsent = self.newest();
            }
            let sent = stream.send(unsent)?;
            unsent = &unsent[sent..];
            if self.in_flight.is_empty() {
                return Ok(stream);
            }
            if !self.take_back(&mut stream)? && sent == 0 {
                stream.wait(!unsent.is_empty(), self.since)?;
            }
        }
    }

    /// One recv, and what it means for the messages in flight. False: nothing had come.
    fn take_back(&mut self, stream: &mut Stream) -> Result<bool, ClientError> {
        let Some(length) = stream.receive(&mut self.buffer, Some(self.since))? else { return Ok(false) };
        if length == 0 {
            return Err(stream.lost());
        }
        self.since = Instant::now();
        if length > self.in_flight.len() * self.shared.options.size - self.returned {
            return Err(stream.transfer.too_much());
        }
        let mut start = 0;
        while let Some(from) = self.in_flight.front()
            && start < length
        {
            let oldest = self.message(self.begun - self.in_flight.len() as u64);
            let end = length.min(start + oldest.len() - self.returned);
            let expected = &oldest[self.returned..][..end - start];
            stream.check(expected, &self.buffer[start..end])?;
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

    /// Closes the connection after its last message. What goes wrong then has cost no
    /// message; only a byte too many counts as an error.
    fn close(&mut self, stream: Stream) {
        if let Err(error) = self.wait_for_close(stream) {
            self.shared.stats().record_error(u64::from(error.kind == Kind::Wrong), error);
        }
    }

    /// Half-closes, and waits until the server closes as well, without sending more.
    fn wait_for_close(&mut self, mut stream: Stream) -> Result<(), ClientError> {
        stream.half_close()?;
        let since = Instant::now();
        loop {
            match stream.receive(&mut self.buffer, Some(since))? {
                None => stream.wait(false, since)?,
                Some(0) => return Ok(()),
                Some(_) => return Err(stream.transfer.too_much()),
            }
        }
    }

    /// True if this connection has room for another message.
    fn has_room(&self) -> bool {
        let cost = self.shared.options.size.max(BOOKKEEPING);
        match self.shared.options.mode {
            Mode::Keep => self.in_flight.is_empty(),
            Mode::Connect => false,
            Mode::Stream => self.in_flight.len() * cost < MAX_IN_FLIGHT,
        }
    }

    /// Begins another message as soon as it is due, unless there is none left.
    fn begin(&mut self) -> bool {
        let now = Instant::now();
        let Some(due) = self.next_due(now) else { return false };
        // A message that begins late has waited for the server, and that counts. That the
        // sleep before an early one takes too long is not the server's fault.
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
        true
    }

    /// When the next message is to be sent: now, or with a rate, as the clients take
    /// turns. None: there is none left for this client.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let BenchOptions { rate, connections, .. } = self.shared.options;
        let turn = self.begun * u64::from(connections) + self.index;
        let after = |rate| Duration::from_secs_f64(turn as f64 / f64::from(rate));
        let due = rate.map_or(now, |rate| self.shared.start() + after(rate));
        let is_in_time = self.shared.limit().is_none_or(|limit| due < limit.end);
        (self.begun < self.share && is_in_time).then_some(due)
    }

    /// Counts the messages that an error has cost. False: this client has ended, because
    /// it has nothing left to do, or would only fail again.
    fn recovers_from(&mut self, error: ClientError) -> bool {
        let may_succeed = matches!(error.kind, Kind::Wrong | Kind::Lost | Kind::Reset);
        self.shared.stats().record_error(self.in_flight.len().max(1) as u64, error);
        self.in_flight.clear();
        self.returned = 0;
        may_succeed && self.next_due(Instant::now()).is_some()
    }

    /// The message that was begun last.
    fn newest(&self) -> &'a [u8] {
        self.message(self.begun - 1)
    }

    /// Each client begins with another message, as far from the others' as there are
    /// messages: a server that mixes them up is found out.
    fn message(&self, number: u64) -> &'a [u8] {
        let Shared { payloads, options, .. } = self.shared;
        let step = (payloads.number() / u64::from(options.connections)).max(1);
        payloads.get(self.index * step + number)
    }
}
