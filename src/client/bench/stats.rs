//! What has been measured so far. All clients of `bench` record here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use crate::client::{ClientError, Kind};

/// Digits of a latency that are kept: it is exact to a thousandth.
const DIGITS: u8 = 3;

/// Counts and latencies.
#[derive(Debug)]
pub(super) struct Stats {
    /// How long each message took that has come back, in nanoseconds.
    pub(super) latencies: Histogram<u64>,
    /// How long each connection waited for the first byte of its first answer, in nanoseconds.
    pub(super) waits: Histogram<u64>,
    /// Connections that have sent, and to which no byte has come back yet; and those that the
    /// server's kernel has not taken in time.
    pub(super) unanswered: u64,
    /// How many messages each kind of error has cost, and the first error of the kind.
    errors: Vec<(u64, ClientError)>,
    /// When a message last came back.
    last: Option<Instant>,
    /// When the user ended the measurement by a signal.
    pub(super) interrupted: Option<Instant>,
    /// The address at which the server has answered, if that is on this machine.
    pub(super) server: Option<SocketAddr>,
}

impl Stats {
    pub(super) fn new() -> Stats {
        Stats {
            latencies: Histogram::new(DIGITS).expect("so many digits are allowed"),
            waits: Histogram::new(DIGITS).expect("so many digits are allowed"),
            unanswered: 0,
            errors: Vec::new(),
            last: None,
            interrupted: None,
            server: None,
        }
    }

    /// A message has come back at `now`, and took `latency`.
    pub(super) fn record(&mut self, latency: Duration, now: Instant) {
        self.latencies.record(latency.as_nanos() as u64).expect("it grows as needed");
        self.last = self.last.max(Some(now));
    }

    /// The first byte has come back on a connection, after `wait`.
    pub(super) fn record_wait(&mut self, wait: Duration) {
        self.waits.record(wait.as_nanos() as u64).expect("it grows as needed");
        self.unanswered -= 1;
    }

    /// So many messages have failed; none, if only the close went wrong.
    pub(super) fn record_error(&mut self, messages: u64, error: ClientError) {
        match self.errors.iter_mut().find(|(_, first)| first.kind == error.kind) {
            Some((number, _)) => *number += messages,
            None => self.errors.push((messages, error)),
        }
    }

    /// The time from `start` to the last answer, or to the user's signal.
    pub(super) fn elapsed(&self, start: Option<Instant>) -> Duration {
        let end = self.interrupted.or(self.last);
        start.zip(end).map_or(Duration::ZERO, |(start, end)| end.saturating_duration_since(start))
    }

    /// Messages that have come back whole.
    pub(super) fn messages(&self) -> u64 {
        self.latencies.len()
    }

    /// Messages that have failed by an error of any kind.
    pub(super) fn failures(&self) -> u64 {
        self.errors.iter().map(|(number, _)| number).sum()
    }

    /// Messages that have failed by an error of this kind.
    pub(super) fn errors(&self, kind: Kind) -> u64 {
        self.errors.iter().find(|(_, first)| first.kind == kind).map_or(0, |(number, _)| *number)
    }

    /// A line for each kind of error, as it first occurred.
    pub(super) fn error_lines(&self) -> impl Iterator<Item = String> {
        self.errors.iter().map(|(number, first)| match number {
            0 => format!("{first}; so it counts as no error"),
            1 => first.to_string(),
            several => format!("{first} (the first of {several} messages that failed so)"),
        })
    }
}
