//! The messages of one client.
//!
//! The life of a message: it is due, and begins (`begin`). It is sent, in as many sends as
//! it takes (`send`). It comes back, in as many recvs, is compared with what was sent, and
//! is recorded with the time from its beginning to its last byte (`take_back`).

use std::collections::VecDeque;
use std::mem;
use std::time::{Duration, Instant};

use super::Shared;
use crate::client::stream::MAX_IN_FLIGHT;
use crate::client::{ClientError, Stream};
use crate::config::{BenchOptions, Mode};

/// What a message in flight costs at the least, as if it were so many bytes.
const BOOKKEEPING: usize = 64;

/// What has become of the next message.
pub(super) enum Turn {
    Begun,
    /// It is due then.
    Later(Instant),
    /// There is none left for this client.
    NoMore,
}

/// The messages of a client.
pub(super) struct Messages<'a> {
    shared: &'a Shared,
    /// Which of the clients it is, from 0 on.
    index: u64,
    /// How many messages it may begin.
    share: u64,
    /// How many messages it has begun.
    begun: u64,
    /// Whether the next message waits until it is due.
    is_early: bool,
    /// Those in flight, the oldest first: since when the latency of each counts.
    in_flight: VecDeque<Instant>,
    /// How much of the newest has not been sent yet, in bytes.
    pub(super) unsent: usize,
    /// How much of the oldest has come back, in bytes.
    returned: usize,
    /// When a byte last came back, or the first of those that are due began.
    pub(super) since: Instant,
    /// When the connection's first bytes were sent, until the first comes back.
    asked: Option<Instant>,
}

impl<'a> Messages<'a> {
    /// Up to `share` messages, or as many as there is time for.
    pub(super) fn new(shared: &'a Shared, index: u64, share: Option<u64>) -> Messages<'a> {
        Messages {
            shared,
            index,
            share: share.unwrap_or(u64::MAX),
            begun: 0,
            is_early: false,
            in_flight: VecDeque::new(),
            unsent: 0,
            returned: 0,
            since: Instant::now(),
            asked: None,
        }
    }

    /// How many are in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The connection is closed, and with it goes what was in flight.
    pub(super) fn drop_all(&mut self) {
        self.in_flight.clear();
        (self.unsent, self.returned, self.asked) = (0, 0, None);
    }

    /// When the next message is to be sent: now, or with a rate, as the clients take
    /// turns. None: there is none left for this client.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let BenchOptions { rate, connections, .. } = self.shared.options;
        let turn = self.begun * u64::from(connections) + self.index;
        let after = |rate| Duration::from_secs_f64(turn as f64 / f64::from(rate));
        let due = rate.map_or(now, |rate| self.shared.start() + after(rate));
        let is_in_time = self.shared.limit().is_none_or(|limit| due < limit.end);
        (self.begun < self.share && is_in_time).then_some(due)
    }

    /// True if this connection has room for another message.
    pub(super) fn has_room(&self) -> bool {
        let cost = self.shared.options.size.max(BOOKKEEPING);
        match self.shared.options.mode {
            Mode::Keep => self.in_flight.is_empty(),
            Mode::Connect => false,
            Mode::Stream => self.in_flight.len() * cost < MAX_IN_FLIGHT,
        }
    }

    /// Begins another message if it is due.
    pub(super) fn begin(&mut self) -> Turn {
        let now = Instant::now();
        let Some(due) = self.next_due(now) else { return Turn::NoMore };
        if due > now {
            self.is_early = true;
            return Turn::Later(due);
        }
        // A message that begins late has waited for the server, and that counts. That the
        // wait for an early one takes too long is not the server's fault.
        let from = if mem::take(&mut self.is_early) { now } else { due };
        if self.in_flight.is_empty() {
            self.since = now;
        }
        self.in_flight.push_back(from);
        self.begun += 1;
        self.unsent = self.shared.options.size;
        Turn::Begun
    }

    /// Sends as much of the newest message as there is room for.
    pub(super) fn send(&mut self, stream: &mut Stream) -> Result<usize, ClientError> {
        if self.unsent == 0 {
            return Ok(0);
        }
        let newest = self.message(self.begun - 1);
        let now = (stream.transfer.sent == 0).then(Instant::now);
        let sent = stream.send(&newest[newest.len() - self.unsent..])?;
        self.unsent -= sent;
        if now.is_some() && sent > 0 {
            self.asked = now;
            self.shared.stats().unanswered += 1;
        }
        Ok(sent)
    }

    /// One recv, and what it means for the messages in flight. False: nothing had come.
    pub(super) fn take_back(&mut self, stream: &mut Stream, buffer: &mut [u8]) -> Result<bool, ClientError> {
        let Some(length) = stream.receive(buffer, Some(self.since))? else { return Ok(false) };
        if length == 0 {
            return Err(stream.lost());
        }
        self.since = Instant::now();
        if let Some(asked) = self.asked.take() {
            self.shared.stats().record_wait(self.since.saturating_duration_since(asked));
        }
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
            stream.check(expected, &buffer[start..end])?;
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

    /// Each client begins with another message, as far from the others' as there are
    /// messages: a server that mixes them up is found out.
    fn message(&self, number: u64) -> &'a [u8] {
        let Shared { payloads, options, .. } = self.shared;
        let step = (payloads.number() / u64::from(options.connections)).max(1);
        payloads.get(self.index * step + number)
    }
}
