//! The end of a measurement: a server that sends a byte now and then must not put it off.

use std::time::{Duration, Instant};

/// When a connection must be over, however much is still to come.
#[derive(Debug, Clone, Copy)]
pub struct Limit {
    /// No message is due later.
    pub end: Instant,
    /// For so long all that is in flight then is waited for, in all.
    pub grace: Duration,
}

impl Limit {
    /// When all waiting ends.
    pub fn deadline(self) -> Instant {
        self.end + self.grace
    }
}

/// What is left until then, in whole milliseconds: a time-out that can be set, since 0
/// would be for ever.
pub(super) fn time_left(deadline: Instant) -> Duration {
    let left = deadline.saturating_duration_since(Instant::now());
    Duration::from_millis(left.as_millis() as u64 + 1)
}
