//! A thread of `bench`, and the clients that it drives: it advances each client as far as
//! that goes without waiting, and then waits for all of them at once.
//!
//! A client that has a thread of its own is as fast as the plainest client in C: it blocks
//! in recv by itself, and nothing is left to be waited for here.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::time::Instant;

use nix::errno::Errno;

use super::Shared;
use super::bench_client::{BenchClient, Step};
use crate::client::stream::CHUNK;
use crate::config::{BenchOptions, Mode};
use crate::sys::poller::Poller;

/// A thread's clients, and what they wait for.
pub(super) struct Driver<'a> {
    shared: &'a Shared,
    poller: Poller,
    clients: Vec<Entry<'a>>,
    /// Which client has a descriptor.
    by_fd: HashMap<RawFd, usize>,
    /// One check for each client at most, in the order of time.
    checks: BTreeSet<(Instant, usize)>,
    /// What one recv takes. Nothing stays in it.
    buffer: Vec<u8>,
}

struct Entry<'a> {
    client: BenchClient<'a>,
    /// Its entry in the list of checks.
    check: Option<Instant>,
    /// Whether it has come to the end of the phase.
    is_done: bool,
}

impl<'a> Driver<'a> {
    /// The thread of `clients`.
    pub(super) fn new(shared: &'a Shared, poller: Poller, clients: Vec<BenchClient<'a>>) -> Driver<'a> {
        let entry = |client| Entry { client, check: None, is_done: false };
        Driver {
            shared,
            poller,
            clients: clients.into_iter().map(entry).collect(),
            by_fd: HashMap::new(),
            checks: BTreeSet::new(),
            buffer: vec![0; chunk(&shared.options)],
        }
    }

    /// Connections that are kept are all open before the clock starts.
    pub(super) fn run(mut self) {
        self.drive(BenchClient::open);
        self.shared.barrier.wait();
        self.shared.start.get_or_init(Instant::now);
        self.drive(BenchClient::advance);
    }

    /// Takes all clients to the end of a phase.
    fn drive(&mut self, advance: fn(&mut BenchClient<'a>, &mut [u8]) -> Step) {
        self.clients.iter_mut().for_each(|entry| entry.is_done = false);
        let mut left = self.clients.len();
        let mut next: Vec<usize> = (0..left).collect();
        let mut ready = Vec::new();
        loop {
            for index in next.drain(..) {
                let entry = &mut self.clients[index];
                // What was ready for a connection that is closed by now does no harm.
                if !entry.is_done {
                    let step = advance(&mut entry.client, &mut self.buffer);
                    left -= usize::from(matches!(step, Step::Done));
                    self.arrange(index, step);
                }
            }
            if left == 0 {
                return;
            }
            self.wait(&mut ready);
            next.extend(ready.iter().filter_map(|fd| self.by_fd.get(fd)));
            self.take_due(&mut next);
        }
    }

    /// Sees to it that the client is advanced again when what it waits for has come.
    fn arrange(&mut self, index: usize, step: Step) {
        let entry = &mut self.clients[index];
        entry.is_done = matches!(step, Step::Done);
        let (interest, mut until) = match step {
            Step::Wait { interest, until } => (interest, until),
            Step::Done => (None, None),
        };
        match entry.client.watch(&self.poller, interest) {
            Ok(fd) => self.by_fd.extend(fd.map(|fd| (fd, index))),
            Err(error) => {
                entry.client.fail(error);
                until = Some(Instant::now());
            }
        }
        // A check that comes too early does no harm: most are never reached.
        if entry.check.is_none_or(|kept| until.is_some_and(|until| until < kept)) {
            if let Some(kept) = entry.check {
                self.checks.remove(&(kept, index));
            }
            entry.check = until;
            self.checks.extend(until.map(|until| (until, index)));
        }
    }

    /// Waits until a client can go on. Messages that are due at fixed times need a clock
    /// finer than that of epoll.
    fn wait(&mut self, ready: &mut Vec<RawFd>) {
        let deadline = self.checks.first().map(|(until, _)| *until);
        let waited = match self.shared.options.rate {
            Some(_) => self.poller.wait_precisely(ready, deadline),
            None => self.poller.wait(ready, deadline),
        };
        // The process was stopped and continued (signal(7)).
        assert!(matches!(waited, Ok(()) | Err(Errno::EINTR)), "the descriptor is a poller's: {waited:?}");
    }

    /// Takes the checks that are due off the list.
    fn take_due(&mut self, next: &mut Vec<usize>) {
        let now = Instant::now();
        while let Some((until, index)) = self.checks.first().copied()
            && until <= now
        {
            self.checks.pop_first();
            self.clients[index].check = None;
            next.push(index);
        }
    }
}

/// What one recv takes at the most, in bytes.
fn chunk(options: &BenchOptions) -> usize {
    match options.mode {
        Mode::Stream => CHUNK,
        // A byte more than is due: if the server sends one too many, it is seen.
        _ => CHUNK.min(options.size + 1),
    }
}
