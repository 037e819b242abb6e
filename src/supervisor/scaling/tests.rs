//! The pool over whole histories, on a clock of its own.

use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::scoreboard::ExitKind;
use crate::supervisor::respawn::{Respawn, RestartDecision, WorkerRun};

const SPARE_FOR: Duration = Duration::from_secs(10);

/// What happens to a pool.
#[derive(Debug, Clone, Copy)]
enum Event {
    Connect(usize),
    /// The client with this number, modulo all clients, ends.
    Disconnect(usize),
    /// The worker with this number, modulo all workers, is killed with its clients.
    Kill(usize),
    /// So many milliseconds pass.
    Wait(u64),
    Ttin,
    Ttou,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..20_usize).prop_map(Event::Connect),
        4 => any::<usize>().prop_map(Event::Disconnect),
        1 => any::<usize>().prop_map(Event::Kill),
        3 => (1..6_000_u64).prop_map(Event::Wait),
        1 => Just(Event::Ttin),
        1 => Just(Event::Ttou),
    ]
}

/// A pool on a clock of its own, whose workers start and leave without delay.
struct Pool {
    limits: Limits,
    now: Duration,
    /// The workers, each with the number of its clients.
    workers: Vec<(Worker, usize)>,
    waiting: usize,
    decisions: usize,
}

impl Pool {
    fn new(least: usize, most: usize, places: usize) -> Pool {
        let limits = Limits { least, most, places, spare_for: SPARE_FOR };
        let mut pool = Pool { limits, now: SPARE_FOR, workers: vec![], waiting: 0, decisions: 0 };
        (0..least).for_each(|_| pool.fork());
        pool
    }

    fn fork(&mut self) {
        let is_free = |slot: &usize| self.workers.iter().all(|(worker, _)| worker.slot != *slot);
        let slot = (0..).find(is_free).unwrap();
        let worker = Worker { slot, forked_at: self.now, load: Load::IdleSince(self.now) };
        self.workers.push((worker, 0));
    }

    fn set_clients(&mut self, index: usize, clients: usize) {
        let (worker, now) = (&mut self.workers[index], clients);
        worker.1 = now;
        worker.0.load = match now {
            0 => Load::IdleSince(self.now),
            _ if now == self.limits.places => Load::Full,
            _ => Load::Partial,
        };
    }

    fn happen(&mut self, event: Event) {
        let busy: Vec<_> = (0..self.workers.len()).filter(|index| self.workers[*index].1 > 0).collect();
        match event {
            Event::Connect(clients) => self.waiting += clients,
            Event::Disconnect(number) if !busy.is_empty() => {
                let index = busy[number % busy.len()];
                self.set_clients(index, self.workers[index].1 - 1);
            }
            Event::Disconnect(_) => {}
            Event::Kill(number) => {
                // It is replaced in its slot.
                let index = number % self.workers.len();
                self.workers[index].0.forked_at = self.now;
                self.set_clients(index, 0);
            }
            Event::Wait(milliseconds) => self.pass(Duration::from_millis(milliseconds)),
            Event::Ttin => self.limits.least = (self.limits.least + 1).min(self.limits.most),
            Event::Ttou => self.limits.least = (self.limits.least - 1).max(1),
        }
        while self.workers.len() < self.limits.least {
            self.fork();
        }
        self.settle();
    }

    /// Time passes, and decisions are made when they are due, and only then.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(again_at) = self.settle().again_at.filter(|at| *at <= end) {
            assert!(again_at > self.now, "a decision that is due at once would be a busy loop");
            self.now = again_at;
        }
        self.now = end;
    }

    /// Accepts what waits and carries out decisions, until there is nothing more to do.
    fn settle(&mut self) -> Decision {
        loop {
            for index in 0..self.workers.len() {
                let taken = self.waiting.min(self.limits.places - self.workers[index].1);
                if taken > 0 {
                    self.waiting -= taken;
                    self.set_clients(index, self.workers[index].1 + taken);
                }
            }
            let workers: Vec<_> = self.workers.iter().map(|(worker, _)| *worker).collect();
            let decision = decide(self.limits, &workers, self.waiting, 0, self.now);
            self.decisions += 1;
            self.check(&decision);
            (0..decision.add).for_each(|_| self.fork());
            self.workers.retain(|(worker, _)| !decision.give_up.contains(&worker.slot));
            assert!((self.limits.least..=self.limits.most).contains(&self.workers.len()));
            if decision.add == 0 && decision.give_up.is_empty() {
                return decision;
            }
        }
    }

    fn check(&self, decision: &Decision) {
        let (limits, now) = (self.limits, self.workers.len());
        let is_full = self.workers.iter().all(|(_, clients)| *clients == limits.places);
        let must_add = is_full && self.waiting > 0 && now < limits.most;
        assert_eq!(decision.add > 0, must_add, "it grows when connections wait, and only then");
        assert!(decision.add <= self.waiting, "no more workers than wait");
        assert!(!decision.watch_queue || (is_full && now < limits.most), "not while a worker has room");
        assert_eq!(decision.wants_full, !is_full && now < limits.most);
        assert!(now > limits.least || decision.again_at.is_none(), "nothing ticks at the least");
        let born = |slot: &usize| self.workers.iter().find(|(worker, _)| worker.slot == *slot).unwrap();
        for (worker, clients) in decision.give_up.iter().map(born) {
            assert_eq!(*clients, 0, "no client is cut");
            let is_due = |load| matches!(load, Load::IdleSince(since) if since + SPARE_FOR <= self.now);
            assert!(is_due(worker.load));
            let idle = self.workers.iter().filter(|(_, clients)| *clients == 0);
            let younger = idle.filter(|(other, _)| other.forked_at > worker.forked_at).count();
            assert!(younger < now - limits.least, "the youngest first");
        }
    }
}

proptest! {
    #[test]
    fn the_pool_stays_within_its_limits_and_comes_back(
        least in 1..5_usize, more in 0..20_usize, places in 1..4_usize,
        events in prop::collection::vec(event(), 1..200),
    ) {
        let mut pool = Pool::new(least, least + more, places);
        events.into_iter().for_each(|event| pool.happen(event));
        while pool.workers.iter().any(|(_, clients)| *clients > 0) {
            pool.happen(Event::Disconnect(0));
        }
        let (decisions, workers) = (pool.decisions, pool.workers.len());
        pool.pass(2 * SPARE_FOR);
        prop_assert_eq!(pool.workers.len(), pool.limits.least);
        prop_assert!(pool.decisions - decisions <= 2 * workers + 2, "it ticks");
    }
}

#[test]
fn as_many_workers_are_added_as_wait_by_their_places() {
    let full = |slot| Worker { slot, forked_at: Duration::ZERO, load: Load::Full };
    let workers = [full(0), full(1)];
    for (places, waiting, leaving, added) in
        [(1, 3, 0, 3), (1, 30, 0, 8), (1, 30, 5, 3), (1, 30, 8, 0), (16, 16, 0, 1), (16, 17, 0, 2)]
    {
        let limits = Limits { least: 1, most: 10, places, spare_for: SPARE_FOR };
        let decision = decide(limits, &workers, waiting, leaving, SPARE_FOR);
        assert_eq!(decision.add, added, "{waiting} wait, {places} places, {leaving} leave");
        assert!(!decision.watch_queue, "a queue that is watched in vain is a busy loop");
    }
}

#[test]
fn crashes_at_the_start_back_off_while_connections_wait() {
    let limits = Limits { least: 1, most: 100, places: 1, spare_for: SPARE_FOR };
    let busy = Worker { slot: 0, forked_at: Duration::ZERO, load: Load::Full };
    let (mut respawn, start) = (Respawn::default(), Instant::now());
    let (mut workers, mut forks, mut due) = (vec![busy], 0, start);
    for millisecond in 0..60_000 {
        let now = start + Duration::from_millis(millisecond);
        let decision = decide(limits, &workers, 3, 0, now - start);
        let missing = Worker { slot: 1, load: Load::Missing, ..busy };
        workers.extend((0..decision.add).map(|_| missing));
        // All that were added are forked together, and crash at once.
        if workers.len() > 1 && due <= now {
            forks += workers.len() - 1;
            let run = WorkerRun { exit_kind: ExitKind::Crashed, born: now, died: now, connections: 0 };
            for _ in 1..workers.len() {
                let RestartDecision::At(time) = respawn.after(run, true) else { panic!("it waits") };
                due = time;
            }
        }
    }
    assert_eq!(workers.len(), 4, "no more are added while some are missing");
    assert!((3 * 6..3 * 20).contains(&forks), "{forks} forks in a minute");
}

#[test]
fn a_slot_that_stays_empty_is_given_up_when_others_have_room() {
    let limits = Limits { least: 1, most: 10, places: 1, spare_for: SPARE_FOR };
    let missing = Worker { slot: 1, forked_at: Duration::MAX, load: Load::Missing };
    for (load, given_up) in [(Load::Full, vec![]), (Load::IdleSince(SPARE_FOR), vec![1])] {
        let other = Worker { slot: 0, forked_at: Duration::ZERO, load };
        assert_eq!(decide(limits, &[other, missing], 0, 0, SPARE_FOR).give_up, given_up);
        let at_least = Limits { least: 2, ..limits };
        assert!(decide(at_least, &[other, missing], 0, 0, SPARE_FOR).give_up.is_empty());
    }
}
