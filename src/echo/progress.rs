//! Whether a peer is idle: it has neither sent nor taken a byte for the idle time-out.
//!
//! A peer that sends nothing may still be reading, slowly, what it was sent before. Its
//! TCP shows that: the send queue on this side becomes shorter. So a worker that waits
//! for a peer measures the queue now and then, and a shorter one is progress.

use std::time::{Duration, Instant};

/// How often the send queue is measured while a worker waits. After the idle time-out
/// it would be too late to measure it for the first time.
pub fn check_interval(idle_timeout: Option<Duration>) -> Duration {
    (idle_timeout.unwrap_or(Duration::MAX) / 4).clamp(Duration::from_millis(1), Duration::from_millis(250))
}

/// The same where one thread waits for many peers, and measures their queues in turn: a long
/// idle time-out need not be exact to the second.
pub fn coarse_check_interval(idle_timeout: Option<Duration>) -> Duration {
    let coarse = (idle_timeout.unwrap_or(Duration::MAX) / 64).min(Duration::from_secs(4));
    coarse.max(check_interval(idle_timeout))
}

/// What is known of a peer's progress. It has no clock of its own, and before the first
/// check it needs none.
#[derive(Debug)]
pub struct Progress {
    /// A peer without progress for so long is idle; None: it never is.
    pub idle_timeout: Option<Duration>,
    /// How often the send queue is measured while there may be something to take.
    pub interval: Duration,
    last: Option<Check>,
}

/// What the latest check has found.
#[derive(Debug)]
struct Check {
    at: Instant,
    /// The length of the send queue; None: it was not measured.
    queued: Option<usize>,
    progress_at: Instant,
}

impl Progress {
    /// Of a peer that has just made progress, or is waited for from now on.
    pub fn new(idle_timeout: Option<Duration>) -> Progress {
        Progress { idle_timeout, interval: check_interval(idle_timeout), last: None }
    }

    /// The peer has made progress now; `queued` bytes are in the send queue, if that was
    /// measured.
    pub fn made(&mut self, queued: Option<usize>, now: Instant) {
        self.last = Some(Check { at: now, queued, progress_at: now });
    }

    /// Compares the send queue with that of the check before. If it was not measured then, any
    /// bytes in it may have been more just before. At the first check the wait has lasted for
    /// `waited`.
    pub fn check(&mut self, queued: usize, waited: Duration, now: Instant) {
        let (has_taken, progress_at) = match &self.last {
            Some(last) => (last.queued.map_or(queued > 0, |before| queued < before), last.progress_at),
            None => (queued > 0, now.checked_sub(waited).unwrap_or(now)),
        };
        let progress_at = if has_taken { now } else { progress_at };
        self.last = Some(Check { at: now, queued: Some(queued), progress_at });
    }

    /// The length of the send queue at the latest check; 0 if it was not measured.
    pub fn queued(&self) -> usize {
        self.last.as_ref().and_then(|last| last.queued).unwrap_or(0)
    }

    /// Has the peer made no progress for the idle time-out?
    pub fn is_idle(&self, now: Instant) -> bool {
        let quiet_since = self.last.as_ref().map(|last| last.progress_at);
        self.idle_timeout.zip(quiet_since).is_some_and(|(limit, since)| now - since >= limit)
    }

    /// When to check next: at the end of the idle time-out, and now and then before it
    /// while there may be something to take. None: only an event can change anything.
    pub fn next_check(&self) -> Option<Instant> {
        let last = self.last.as_ref()?;
        let is_over = self.idle_timeout.map(|limit| last.progress_at + limit);
        let may_take = (last.queued != Some(0)).then(|| last.at + self.interval);
        is_over.into_iter().chain(may_take).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const STEP: Duration = Duration::from_millis(250);

    #[test]
    fn a_peer_that_takes_nothing_is_idle_after_the_time_out() {
        let start = Instant::now();
        let mut progress = Progress::new(Some(LIMIT));
        assert!(!progress.is_idle(start + 10 * LIMIT), "nothing is known before the first check");
        for step in 0..4 {
            progress.check(100, STEP, start + step * STEP);
            assert!(!progress.is_idle(start + step * STEP), "{step}");
        }
        progress.check(100, STEP, start + LIMIT);
        assert!(progress.is_idle(start + LIMIT));
    }

    #[test]
    fn a_shorter_send_queue_is_progress() {
        let start = Instant::now();
        let mut progress = Progress::new(Some(LIMIT));
        for step in 0..100 {
            let now = start + step * LIMIT / 2;
            progress.check(1000 - step as usize, STEP, now);
            assert!(!progress.is_idle(now), "{step}");
        }
        assert!(progress.is_idle(start + 99 * LIMIT / 2 + LIMIT));
        assert_eq!(progress.queued(), 901);
    }

    #[test]
    fn the_wait_before_the_first_check_counts_where_nothing_is_queued() {
        let start = Instant::now() + LIMIT;
        for (queued, is_idle) in [(0, true), (1, false)] {
            let mut progress = Progress::new(Some(LIMIT));
            progress.check(queued, LIMIT, start);
            assert_eq!(progress.is_idle(start), is_idle, "{queued}");
        }
    }

    #[test]
    fn the_next_check_is_early_only_where_bytes_are_queued() {
        let start = Instant::now();
        for (limit, queued, next) in [
            (Some(LIMIT), 0, Some(LIMIT)),
            (Some(LIMIT), 1, Some(STEP)),
            (None, 1, Some(STEP)),
            (None, 0, None),
        ] {
            let mut progress = Progress::new(limit);
            progress.made(Some(queued), start);
            assert_eq!(progress.next_check(), next.map(|next| start + next), "{limit:?}, {queued}");
            assert!(limit.is_some() || !progress.is_idle(start + 1000 * LIMIT));
            progress.made(None, start);
            assert_eq!(progress.next_check(), Some(start + STEP), "it may be anything");
        }
    }
}
