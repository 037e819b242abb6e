//! Deaths of workers, as the parent's events tell them: how, whom they have cut off, and how
//! fast the slot was filled again.

use std::time::Duration;

use crate::language::{fill, tr};
use crate::scoreboard::Event;
use crate::scoreboard::snapshot::Snapshot;

/// How long a death stays in sight.
const IN_SIGHT: Duration = Duration::from_secs(3);

/// The death of a worker that did not leave in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// The slot that it filled.
    pub slot: usize,
    /// The process that died.
    pub pid: String,
    /// The clients that it has cut off.
    pub cut: u64,
    /// How it died: `killed by SIGKILL`, or `left with exit code 1`.
    how: String,
    /// The time from the death to the replacement. None: the slot is still empty.
    replaced_in: Option<String>,
}

impl Death {
    /// The deaths of the last seconds, the latest one last.
    pub fn recent(snapshot: &Snapshot) -> Vec<Death> {
        let since = snapshot.taken.saturating_sub(IN_SIGHT);
        let recent = snapshot.events.iter().enumerate().filter(|(_, event)| event.time >= since);
        recent.filter_map(|(at, event)| Death::parse(&event.text, &snapshot.events[at..])).collect()
    }

    /// The form is that of `supervisor::reap`. The end of a long text may be missing.
    fn parse(text: &str, later: &[Event]) -> Option<Death> {
        let (slot, pid, rest) = worker(text)?;
        let (how, rest) = rest.split_once(" after ")?;
        let is_death = how.starts_with("killed by ") || how.starts_with("left with exit code ");
        let is_in_order = how == "left with exit code 0";
        let cut = match rest.split_once(", its ").map(|(_, cut)| cut) {
            None => 0,
            Some(cut) => cut.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(1),
        };
        let replaced = format!("replaces pid {pid}, ");
        let replaced_in =
            later.iter().find_map(|event| event.text.split_once(&replaced)?.1.split(' ').next());
        (is_death && !is_in_order).then(|| Death {
            slot,
            pid: pid.into(),
            cut,
            how: how.into(),
            replaced_in: replaced_in.map(str::to_owned),
        })
    }

    /// How it died, in the user's language.
    pub fn how(&self) -> String {
        match self.how.split_once("killed by ") {
            Some((_, signal)) => fill(tr("killed by {signal}"), &[("signal", &signal)]),
            None => fill(tr("ended: {how}"), &[("how", &self.how)]),
        }
    }

    /// Whether the slot is filled again, and how soon.
    pub fn replacement(&self) -> String {
        match &self.replaced_in {
            Some(time) => fill(tr("replaced in {time}"), &[("time", time)]),
            None => tr("not replaced yet").into(),
        }
    }
}

/// The slot, the pid and the rest of `worker 3 (pid 4240) killed by …`.
fn worker(text: &str) -> Option<(usize, &str, &str)> {
    let (slot, rest) = text.strip_prefix("worker ")?.split_once(" (pid ")?;
    let (pid, rest) = rest.split_once(") ")?;
    Some((slot.parse().ok()?, pid, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_death_is_read_from_the_events_of_the_parent() {
        let event = |text: &str| Event { time: Duration::ZERO, text: text.into() };
        let read = |text: &str, later: &str| {
            let death = Death::parse(text, &[event(text), event(later)])?;
            Some((death.slot, death.cut, death.how(), death.replacement()))
        };
        let killed = "worker 3 (pid 4240) killed by SIGKILL after 3.2s and 5 connections";
        let replaced = "worker 3 (pid 4246) replaces pid 4240, 135.5µs after its death was seen";
        let expected = |cut| Some((3, cut, "killed by SIGKILL".to_owned(), "replaced in 135.5µs".to_owned()));
        assert_eq!(read(killed, replaced), expected(0));
        assert_eq!(read(&format!("{killed}, its client [2001:db8::"), replaced), expected(1));
        assert_eq!(read(&format!("{killed}, its client is cut off"), replaced), expected(1));
        assert_eq!(read(&format!("{killed}, its 8 clients are cut off"), replaced), expected(8));
        let (.., how, replacement) = read(
            "worker 0 (pid 1) left with exit code 1 after 3.2s and 0 connections",
            "worker 0 (pid 3) replaces pid 2, 1ms after its death was seen",
        )
        .unwrap();
        assert_eq!([how, replacement], ["ended: left with exit code 1", "not replaced yet"]);
        for other in ["worker 0 (pid 1) left with exit code 0 after 3.2s and 5 connections", replaced, ""] {
            assert_eq!(read(other, ""), None);
        }
    }
}
