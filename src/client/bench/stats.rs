//! What has been measured so far: all callers count here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::stream::{ClientError, Kind};

/// Digits of a latency that are kept: it is exact to a thousandth.
const DIGITS: u8 = 3;

/// Counts and latencies.
#[derive(Debug)]
pub struct Stats {
    /// ColumnKind each message that has come back: how long that took, in nanoseconds.
    pub latencies: Histogram<u64>,
    /// ColumnKind each kind of error: how many messages it has cost, and the first.
    troubles: Vec<(u64, ClientError)>,
    /// When a message last came back.
    last: Option<Instant>,
    /// When the user had seen enough.
    pub interrupted: Option<Instant>,
    /// Where the server has answered, if that is on this machine.
    pub server: Option<SocketAddr>,
}

impl Stats {
    /// Nothing has been measured.
    pub fn new() -> Stats {
        Stats {
            latencies: Histogram::new(DIGITS).expect("so many digits are allowed"),
            troubles: Vec::new(),
            last: None,
            interrupted: None,
            server: None,
        }
    }

    /// A message has come back, at `now`.
    pub fn record(&mut self, after: Duration, now: Instant) {
        self.latencies.record(after.as_nanos() as u64).expect("it grows as needed");
        self.last = self.last.max(Some(now));
    }

    /// So many messages have failed; none, if it was only the end that went wrong.
    pub fn failed(&mut self, messages: u64, error: ClientError) {
        match self.troubles.iter_mut().find(|(_, first)| first.kind == error.kind) {
            Some((number, _)) => *number += messages,
            None => self.troubles.push((messages, error)),
        }
    }

    /// From `start` to the last answer, or until the user had seen enough.
    pub fn elapsed(&self, start: Option<Instant>) -> Duration {
        let end = self.interrupted.or(self.last);
        start.zip(end).map_or(Duration::ZERO, |(start, end)| end.saturating_duration_since(start))
    }

    /// Payloads that have failed at all.
    pub fn failures(&self) -> u64 {
        self.troubles.iter().map(|(number, _)| number).sum()
    }

    /// Payloads that have failed in this way.
    pub fn errors(&self, kind: Kind) -> u64 {
        self.troubles.iter().find(|(_, first)| first.kind == kind).map_or(0, |(number, _)| *number)
    }

    /// Has everything come back as it was sent?
    pub fn is_flawless(&self) -> bool {
        self.failures() == 0
    }

    /// What has gone wrong, a line for each kind.
    pub fn troubles(&self) -> impl Iterator<Item = String> {
        self.troubles.iter().map(|(number, first)| match number {
            0 => format!("{first}; so it counts as no error"),
            1 => first.to_string(),
            several => format!("{first} (the first of {several} messages that failed so)"),
        })
    }

    /// Payloads that have come back whole.
    pub fn messages(&self) -> u64 {
        self.latencies.len()
    }
}
