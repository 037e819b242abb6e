//! The pool grows and shrinks, as `scaling` decides.
//!
//! While a worker has room, the parent does not look at connections: it asks for one report, and
//! the worker that takes the last place sends it. From then on, until a worker has room again,
//! the parent's poll watches the accept queue, too.

use std::time::Instant;

use log::Level;
use nix::sys::signal::Signal;

use super::Supervisor;
use super::scaling::{self, Decision, Limits};
use super::shutdown::Stage;
use crate::config::Config;
use crate::listener::Listener;
use crate::sys::clock;
use crate::text::count;

/// The size of the pool, and what the parent waits for to change it.
#[derive(Debug)]
pub(super) struct Pool {
    pub limits: Limits,
    /// The most that the user has asked for; 0: the pool has a fixed size.
    may_grow_to: usize,
    /// The accept queue is to be watched: no worker has room.
    pub watches_queue: bool,
    /// When to decide again, if nothing happens before.
    pub decide_at: Option<Instant>,
}

impl Pool {
    pub fn new(config: &Config) -> Pool {
        let (least, most) = (usize::from(config.workers), usize::from(config.most_workers()));
        let limits = Limits { least, most, places: config.clients_at_once(), spare_for: config.spare_for };
        let may_grow_to = if config.pool_may_grow() { most } else { 0 };
        Pool { limits, may_grow_to, watches_queue: false, decide_at: None }
    }

    /// May the number of workers change without a signal?
    pub fn may_grow(&self) -> bool {
        self.may_grow_to > 0
    }

    /// "4 workers", or "4 to 8 workers".
    pub fn size(&self) -> String {
        match self.may_grow() {
            true => format!("{} to {} workers", self.limits.least, self.limits.most),
            false => count(self.limits.least as u64, "worker"),
        }
    }
}

impl Supervisor<'_> {
    /// May another process be forked, in addition to all that there are? A pool that may grow has at
    /// no time more than its most, and so many `extra`; those that leave count.
    pub(super) fn may_add_process(&self, extra: usize) -> bool {
        let processes = self.children.slots() + self.children.leaving();
        !self.pool.may_grow() || processes < self.pool.limits.most + extra
    }

    /// Changes the least, and with it, if need be, the most.
    pub(super) fn set_least(&mut self, least: usize) {
        let most = least.max(self.pool.may_grow_to);
        (self.pool.limits.least, self.pool.limits.most) = (least, most);
        self.scoreboard.set_pool_limits(least, most);
        while self.children.slots() < least {
            self.children.add_slot();
        }
        while self.children.slots() > most
            && let Some(last) = self.children.last_slot()
        {
            let worker = self.children.remove_slot(last);
            worker.into_iter().for_each(|pid| self.terminate(pid));
        }
    }

    /// Adds workers or gives them up, as it is decided, and prepares for the next decision.
    pub(super) fn scale(&mut self) {
        if !self.pool.may_grow() || !matches!(self.stage, Stage::Running) {
            return;
        }
        loop {
            // Before the look at the workers: one that takes the last place after it reports it.
            self.scoreboard.set_wants_full(true);
            let workers = self.children.loads();
            let is_full = scaling::is_full(&workers);
            let waiting = self.listener.as_ref().filter(|_| is_full).map_or(0, Listener::waiting);
            let leaving = self.children.leaving();
            let decision = scaling::decide(self.pool.limits, &workers, waiting, leaving, clock::now());
            let Decision { add, give_up, wants_full, watch_queue, again_at } = decision;
            if add > 0 {
                self.add_workers(add, waiting);
            } else if !give_up.is_empty() {
                give_up.into_iter().for_each(|slot| self.give_up(slot));
            } else {
                self.scoreboard.set_wants_full(wants_full);
                self.pool.watches_queue = watch_queue;
                let wait = again_at.map(|at| at.saturating_sub(clock::now()));
                self.pool.decide_at = wait.map(|wait| Instant::now() + wait);
                break;
            }
        }
    }

    fn add_workers(&mut self, add: usize, waiting: usize) {
        let verb = if waiting == 1 { "waits" } else { "wait" };
        let waiting = count(waiting as u64, "connection");
        let busy = match self.children.slots() {
            1 => "the only worker is busy".into(),
            workers => format!("all {workers} workers are busy"),
        };
        let more = count(add as u64, "more worker");
        self.log_event(Level::Info, format!("{waiting} {verb} and {busy}: {more}"));
        (0..add).for_each(|_| self.children.add_slot());
        self.spawn_missing_workers();
    }

    fn give_up(&mut self, slot: usize) {
        let Some(pid) = self.children.give_up_slot(slot) else { return };
        let idle = humantime::format_duration(self.pool.limits.spare_for);
        let what = format!("worker {slot} (pid {pid}) was idle for {idle}, and is not needed any more");
        self.log_event(Level::Info, what);
        // It interrupts accept, and the worker finds that it is to accept no more. If it has just
        // got a client, it serves that one to the end.
        self.send(pid, Signal::SIGCONT);
    }
}
