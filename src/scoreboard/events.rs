//! The latest events, to be read from outside: a ring that the parent writes
//! ([`Writer::record`](super::Writer::record)). An event that is overwritten while it is
//! read is left out.

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::atomic::fence;
use std::time::Duration;

use super::layout::{EVENTS, EventNumbers};
use super::{Scoreboard, codec};

/// Something that has happened.
#[derive(Debug, Clone)]
pub struct Event {
    /// When, on the [shared clock](crate::sys::clock).
    pub time: Duration,
    /// What, as in the log.
    pub text: String,
}

impl Scoreboard {
    /// The latest events, the latest one last.
    pub fn events(self) -> Vec<Event> {
        let last = self.numbers.control.last_event.load(Relaxed);
        fence(Acquire);
        let numbers = last.saturating_sub(EVENTS as u64 - 1).max(1)..=last;
        numbers.filter_map(|number| self.event(number)).collect()
    }

    /// None: a later event overwrites it.
    fn event(self, number: u64) -> Option<Event> {
        let event = self.event_numbers(number);
        let is_there = || event.number.load(Relaxed) == number;
        is_there().then_some(())?;
        fence(Acquire);
        let time = Duration::from_nanos(event.time.load(Relaxed));
        let text = codec::load_text(&event.text);
        fence(Acquire);
        is_there().then_some(Event { time, text })
    }

    pub(super) fn event_numbers(self, number: u64) -> &'static EventNumbers {
        &self.numbers.events[number as usize % EVENTS]
    }
}
