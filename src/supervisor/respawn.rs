//! What to do after a worker's death: a function of the history and the clock.
//!
//! A worker that was killed from outside, or that left as it was asked to, is replaced at
//! once, as often as it takes. A worker that crashes just after its start would crash again,
//! and replacing it at once would be a fork storm: each round of such crashes doubles the
//! wait, and after some rounds the server gives up. Nothing here forks, waits, or reads a
//! clock.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::scoreboard::ExitKind;
use crate::sys::process::WaitStatus;

/// A worker that crashes after that time, or has served a client, has shown that workers can
/// start.
const MIN_UPTIME: Duration = Duration::from_secs(1);

/// The wait after the first round of crashes; it doubles with each.
const FIRST_WAIT: Duration = Duration::from_millis(100);

/// The longest wait.
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// After more rounds in a row than these, some 3 s in all, the server gives up.
const ROUNDS: u32 = 5;

/// After so long without a crash, the next one counts as the first. Longer than the longest
/// wait and [`MIN_UPTIME`] together.
const RESET_AFTER: Duration = Duration::from_secs(10);

impl ExitKind {
    /// The kind of what waitpid returned. A signal that a process gets for its own faults
    /// counts as a crash: that it was sent by kill(2) cannot be told.
    pub fn of(status: WaitStatus) -> ExitKind {
        use Signal::*;
        const FAULTS: [Signal; 7] = [SIGABRT, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGSYS, SIGTRAP];
        match status {
            WaitStatus::Exit(0) => ExitKind::Left,
            WaitStatus::Signal(number) if FAULTS.iter().all(|fault| *fault as i32 != number) => {
                ExitKind::Killed
            }
            WaitStatus::Exit(_) | WaitStatus::Signal(_) => ExitKind::Crashed,
        }
    }
}

/// A worker's run, from its fork to its death.
#[derive(Debug, Clone, Copy)]
pub struct WorkerRun {
    /// Why it died.
    pub exit_kind: ExitKind,
    /// When it was forked.
    pub born: Instant,
    /// When its death was seen.
    pub died: Instant,
    /// How many connections it had accepted.
    pub connections: u64,
}

/// When to replace a worker that died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RestartDecision {
    /// At once.
    Now,
    /// At that time, and not before.
    At(Instant),
    /// Never: workers crash at their start, and none is past it.
    GiveUp,
}

/// The history of crashes at the start.
#[derive(Debug, Default)]
pub struct Respawn {
    round: Option<Round>,
}

/// Workers forked together crash together; that counts once.
#[derive(Debug, Clone, Copy)]
struct Round {
    /// How many there have been in a row, with this one.
    number: u32,
    /// The first crash of this round.
    began: Instant,
    /// When the next workers may be forked.
    retry_at: Instant,
}

impl Respawn {
    /// Records a death and decides. `others_stable`: another worker is past its start. Then the
    /// server serves, and giving up would make matters worse.
    pub fn after(&mut self, run: WorkerRun, others_stable: bool) -> RestartDecision {
        let at_start = !is_stable(run.born, run.died) && run.connections == 0;
        if run.exit_kind != ExitKind::Crashed || !at_start {
            return RestartDecision::Now;
        }
        let round = match self.round {
            Some(last) if run.died.duration_since(last.began) >= RESET_AFTER => Round::new(1, run.died),
            Some(last) if run.born >= last.began => Round::new(last.number + 1, run.died),
            Some(same) => same,
            None => Round::new(1, run.died),
        };
        self.round = Some(round);
        if round.number > ROUNDS && !others_stable {
            RestartDecision::GiveUp
        } else {
            RestartDecision::At(round.retry_at)
        }
    }
}

/// Is a worker that was forked at `born` past its start?
pub fn is_stable(born: Instant, now: Instant) -> bool {
    now.duration_since(born) >= MIN_UPTIME
}

impl Round {
    fn new(number: u32, began: Instant) -> Round {
        let doublings = (number - 1).min(16);
        let wait = (FIRST_WAIT * (1 << doublings)).min(LONGEST_WAIT);
        Round { number, began, retry_at: began + wait }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn crash(born: Instant, died: Instant) -> WorkerRun {
        WorkerRun { exit_kind: ExitKind::Crashed, born, died, connections: 0 }
    }

    /// Forks as the policy says, on a clock of its own, workers that each crash
    /// `life` after their start. Returns when each round was forked.
    fn crash_until_it_gives_up(life: Duration, workers: usize) -> Vec<Duration> {
        let (mut respawn, start) = (Respawn::default(), Instant::now());
        let (mut now, mut forks) = (start, Vec::new());
        for _ in 0..100 {
            forks.push(now - start);
            let decisions: Vec<_> =
                (0..workers).map(|_| respawn.after(crash(now, now + life), false)).collect();
            assert!(decisions.iter().all(|decision| *decision == decisions[0]), "one round, one decision");
            match decisions[0] {
                RestartDecision::At(time) => now = time,
                RestartDecision::GiveUp => return forks,
                RestartDecision::Now => panic!("a crash at the start is not answered at once"),
            }
        }
        panic!("it never gave up");
    }

    #[test]
    fn crashes_at_the_start_back_off_and_then_end_the_server() {
        for workers in [1, 4, 1000] {
            let forks = crash_until_it_gives_up(Duration::from_millis(1), workers);
            let waits: Vec<_> = forks.windows(2).map(|pair| (pair[1] - pair[0]).as_millis()).collect();
            assert_eq!(waits, [101, 201, 401, 801, 1601], "with {workers} workers");
        }
    }

    #[test]
    fn while_another_worker_is_stable_it_never_gives_up() {
        let (mut respawn, mut now) = (Respawn::default(), Instant::now());
        for _ in 0..1000 {
            match respawn.after(crash(now, now), true) {
                RestartDecision::At(time) => now = time,
                decision => panic!("{decision:?}"),
            }
        }
    }

    #[test]
    fn a_crash_long_ago_is_forgotten() {
        let (mut respawn, start) = (Respawn::default(), Instant::now());
        for minutes in 0..100 {
            let now = start + Duration::from_secs(60 * minutes);
            assert_eq!(respawn.after(crash(now, now), false), RestartDecision::At(now + FIRST_WAIT));
        }
    }

    #[test]
    fn a_crash_is_told_from_a_kill() {
        use WaitStatus::{Exit, Signal as By};
        assert_eq!(ExitKind::of(Exit(0)), ExitKind::Left);
        assert_eq!(ExitKind::of(Exit(1)), ExitKind::Crashed);
        for number in [Signal::SIGKILL as i32, Signal::SIGTERM as i32, 34, 64] {
            assert_eq!(ExitKind::of(By(number)), ExitKind::Killed);
        }
        assert_eq!(ExitKind::of(By(Signal::SIGSEGV as i32)), ExitKind::Crashed);
    }

    /// A history: pauses between deaths, and what each was like (milliseconds).
    fn histories() -> impl Strategy<Value = Vec<(u64, ExitKind, u64, u64, bool)>> {
        let exit_kind = prop_oneof![Just(ExitKind::Left), Just(ExitKind::Killed), Just(ExitKind::Crashed)];
        prop::collection::vec((0..20_000_u64, exit_kind, 0..2_000_u64, 0..3_u64, any::<bool>()), 1..200)
    }

    proptest! {
        #[test]
        fn every_history_is_answered_by_the_rules(history in histories()) {
            let mut respawn = Respawn::default();
            let mut now = Instant::now() + Duration::from_secs(10);
            let mut crashes_in_a_row = 0;
            for (pause, exit_kind, lived, connections, others_stable) in history {
                now += Duration::from_millis(pause);
                let born = now - Duration::from_millis(lived);
                let decision = respawn.after(WorkerRun { exit_kind, born, died: now, connections }, others_stable);

                let at_its_start = exit_kind == ExitKind::Crashed && lived < 1_000 && connections == 0;
                crashes_in_a_row = match at_its_start {
                    true if pause >= 10_000 => 1,
                    true => crashes_in_a_row + 1,
                    false if pause >= 10_000 => 0,
                    false => crashes_in_a_row,
                };
                match decision {
                    // A worker that was killed, left, or had served is replaced at once.
                    RestartDecision::Now => prop_assert!(!at_its_start),
                    // The wait has an end.
                    RestartDecision::At(time) => {
                        prop_assert!(at_its_start);
                        prop_assert!(time <= now + LONGEST_WAIT);
                    }
                    // Only crashes lead there, enough of them, and no other stable worker.
                    RestartDecision::GiveUp => {
                        prop_assert!(at_its_start && !others_stable);
                        prop_assert!(crashes_in_a_row > ROUNDS);
                    }
                }
            }
        }
    }
}
