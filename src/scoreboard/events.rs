//! The latest events, for who looks from outside: a ring, written by the parent.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU64, fence};
use std::time::Duration;

use super::{EVENTS, FIRST_EVENT, LAST_EVENT, Scoreboard, codec};
use crate::sys::clock;

// The numbers of an event's line: which, when (nanoseconds), and a text.
const NUMBER: usize = 0;
const TIME: usize = 1;
const TEXT: usize = 2;

/// Something that has happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// On the [shared clock](clock).
    pub time: Duration,
    /// As the log has it.
    pub text: String,
}

impl Scoreboard {
    /// Adds to the latest events; of a text longer than 112 bytes the rest is cut.
    pub fn record(self, text: &str) {
        let number = self.news(LAST_EVENT).load(Relaxed).wrapping_add(1);
        let event = self.event_line(number);
        // Without its number it is no event: taken away first, and set last.
        event[NUMBER].store(0, Relaxed);
        fence(Release);
        event[TIME].store(clock::now().as_nanos() as u64, Relaxed);
        codec::store_text(&event[TEXT..], text);
        event[NUMBER].store(number, Release);
        self.news(LAST_EVENT).store(number, Release);
    }

    /// The latest events, the latest one last.
    pub fn events(self) -> Vec<Event> {
        let last = self.news(LAST_EVENT).load(Relaxed);
        fence(Acquire);
        let numbers = last.saturating_sub(EVENTS as u64 - 1).max(1)..=last;
        numbers.filter_map(|number| self.event(number)).collect()
    }

    /// None: it is overwritten by a later one.
    fn event(self, number: u64) -> Option<Event> {
        let line = self.event_line(number);
        let is_there = || line[NUMBER].load(Relaxed) == number;
        is_there().then_some(())?;
        fence(Acquire);
        let time = Duration::from_nanos(line[TIME].load(Relaxed));
        let text = codec::load_text(&line[TEXT..]);
        fence(Acquire);
        is_there().then_some(Event { time, text })
    }

    fn event_line(self, number: u64) -> &'static [AtomicU64; 16] {
        &self.0[FIRST_EVENT + number as usize % EVENTS].0
    }
}
