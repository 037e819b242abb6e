//! Many connections in one thread: none of them ever blocks, and the worker blocks in one
//! place only, until one of them is ready or a check of one is due (multiplexing).
//!
//! With `--model multiplex` a worker serves so. Workers of all models finish their last
//! connections so. What one connection does when it is its turn is in `nonblocking`.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use nix::errno::Errno;

use super::accept::{AcceptAction, PAUSE};
use super::linger::LingerTimeouts;
use super::nonblocking::NonblockingConnection;
use super::wakeup;
use super::{ListenerState, Worker};
use crate::echo::{CloseReason, Connection, WorkerHooks};
use crate::error::strerror;
use crate::listener::Listener;
use crate::log::narrate::worker as narrate;
use crate::scoreboard::State;
use crate::sys::poller::{Interest, Poller};

/// The connections of one process, what each waits for, and when each is to be checked.
#[derive(Debug, Default)]
pub(super) struct ConnectionSet {
    /// None: nothing was waited for yet.
    poller: Option<Poller>,
    connections: HashMap<RawFd, Entry>,
    /// One check for each connection at most, in the order of time. A wait that goes on costs
    /// nothing: the number of quiet connections does not matter.
    checks: BTreeSet<(Instant, RawFd)>,
    /// None: they are served for as long as their clients like.
    leaving: Option<LingerTimeouts>,
    /// The listening socket, while the poller watches it. Other processes have it, too, so
    /// it would not leave the poller's list when this process closed it.
    listener: Option<Arc<Listener>>,
    /// Descriptors that the latest wait has reported.
    ready: Vec<RawFd>,
}

/// A connection, and what is noted of it elsewhere in the set.
#[derive(Debug)]
struct Entry {
    connection: NonblockingConnection,
    /// What the poller waits for.
    interest: Option<Interest>,
    /// Its entry in the list of checks.
    check: Option<Instant>,
}

impl Entry {
    /// Brings the poller and the list of checks up to date. A check that comes too early does
    /// no harm and is kept: most are never reached.
    ///
    /// # Errors
    /// The system lacks memory for it, or has reached fs.epoll.max_user_watches.
    fn update(
        &mut self,
        fd: RawFd,
        poller: Option<&Poller>,
        checks: &mut BTreeSet<(Instant, RawFd)>,
    ) -> Result<(), CloseReason> {
        if let Some(poller) = poller {
            let wanted = Some(self.connection.interest());
            let changed = poller.change(&self.connection, self.interest, wanted);
            changed.map_err(|error| CloseReason::Lost(error.into()))?;
            self.interest = wanted;
        }
        let check = self.connection.next_check();
        if self.check.is_none_or(|kept| check.is_some_and(|check| check < kept)) {
            if let Some(kept) = self.check {
                checks.remove(&(kept, fd));
            }
            self.check = check;
            checks.extend(check.map(|check| (check, fd)));
        }
        Ok(())
    }
}

impl ConnectionSet {
    /// How many connections there are.
    pub fn len(&self) -> usize {
        self.connections.len()
    }

    /// Is there no connection?
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// As [`Entry::update`].
    fn insert(&mut self, mut connection: NonblockingConnection) -> Result<(), CloseReason> {
        connection.touch(self.leaving);
        let fd = connection.fd();
        let entry =
            self.connections.entry(fd).insert_entry(Entry { connection, interest: None, check: None });
        entry.into_mut().update(fd, self.poller.as_ref(), &mut self.checks)
    }

    fn remove(&mut self, fd: RawFd) -> Option<NonblockingConnection> {
        let entry = self.connections.remove(&fd)?;
        if let Some(check) = entry.check {
            self.checks.remove(&(check, fd));
        }
        Some(entry.connection)
    }

    /// Takes the next check that is due off the list.
    fn next_due(&mut self, now: Instant) -> Option<RawFd> {
        let (_, fd) = self.checks.first().filter(|(check, _)| *check <= now).copied()?;
        self.checks.pop_first();
        if let Some(entry) = self.connections.get_mut(&fd) {
            entry.check = None;
        }
        Some(fd)
    }

    /// Watches the listening socket; None: no longer.
    fn watch(&mut self, listener: Option<Arc<Listener>>) {
        let interest = |listener: &Option<_>| listener.as_ref().map(|_| Interest::Connection);
        let (before, after) = (interest(&self.listener), interest(&listener));
        let socket = self.listener.as_ref().or(listener.as_ref());
        if let (Some(poller), Some(socket)) = (&self.poller, socket)
            // If it fails, the next round tries again.
            && poller.change(socket.as_ref(), before, after).is_ok()
        {
            self.listener = listener;
        }
    }
}

impl Worker {
    /// Serves up to `--clients` connections at once until this worker is asked to stop, or has
    /// accepted as many as it may and all of them have ended. Returns those that are still open.
    pub(super) fn serve_multiplexed(&mut self, buffer: &mut [u8]) -> ConnectionSet {
        self.row.set_state(State::Idle);
        let mut set = ConnectionSet::default();
        // After a shortage of descriptors: when to accept again.
        let mut paused_until = None;
        while self.may_accept() || (!self.is_stopping() && !set.is_empty()) {
            if !self.may_accept() {
                self.report_retiring(set.len());
            }
            paused_until = paused_until.filter(|until| *until > Instant::now());
            let has_room = set.len() < self.clients_at_once && paused_until.is_none() && self.may_accept();
            if self.serve_once(&mut set, has_room, paused_until, buffer) && self.may_accept() {
                match self.accept_once(Instant::now()) {
                    Ok(connection) => {
                        // Removed and added again, the listening socket is the last in the
                        // kernel's list of those that wait: so each worker gets its share.
                        set.watch(None);
                        self.add(&mut set, connection, &[]);
                    }
                    Err(AcceptAction::Pause) => paused_until = Some(Instant::now() + PAUSE),
                    Err(_) => {}
                }
            }
        }
        set
    }

    /// Prepares the set for waiting. Where there is no descriptor left for that, it tries
    /// again until there is one.
    pub(super) fn open_poller(&mut self, set: &mut ConnectionSet) {
        let mut said = false;
        while set.poller.is_none() {
            match Poller::new() {
                Ok(poller) => set.poller = Some(poller),
                Err(error) => {
                    if !said {
                        warn!(
                            "cannot wait for several connections: {}; trying again",
                            strerror(&error.into())
                        );
                    }
                    said = true;
                    self.pause();
                }
            }
        }
        self.update_all(set);
    }

    /// Waits until a connection is ready or a check is due; until `until`, if that is given;
    /// or, if `accepting`, until there is a connection in the accept queue. Serves those that
    /// are ready, and closes those that have ended. Returns whether there is a connection in
    /// the accept queue.
    pub(super) fn serve_once(
        &mut self,
        set: &mut ConnectionSet,
        accepting: bool,
        until: Option<Instant>,
        buffer: &mut [u8],
    ) -> bool {
        self.check_signals();
        if set.leaving.is_some() {
            set.leaving = Some(self.linger_timeouts());
        }
        if set.poller.is_none() {
            self.open_poller(set);
        }
        set.watch(match &self.listener_state {
            ListenerState::Open(listener) if accepting => Some(Arc::clone(listener)),
            _ => None,
        });
        let deadline = set.checks.first().map(|(check, _)| *check).into_iter().chain(until).min();
        let mut ready = std::mem::take(&mut set.ready);
        match set.poller.as_mut().map(|poller| poller.wait(&mut ready, deadline)) {
            Some(Ok(())) => {}
            Some(Err(Errno::EINTR)) => self.handle_interrupt(),
            // None that is known. It must not become a busy loop.
            _ => self.pause(),
        }
        narrate::woken(set.len(), ready.len());
        let listener = set.listener.as_ref().map(|listener| listener.fd());
        for fd in ready.iter().filter(|fd| Some(**fd) != listener) {
            self.advance(set, *fd, true, buffer);
        }
        let now = Instant::now();
        while let Some(fd) = set.next_due(now) {
            self.advance(set, fd, false, buffer);
        }
        let connection_waits = listener.is_some_and(|listener| ready.contains(&listener));
        set.ready = ready;
        connection_waits
    }

    /// Adds a connection with bytes `unsent`, which were received and not yet sent back.
    pub(super) fn add(&mut self, set: &mut ConnectionSet, connection: Connection, unsent: &[u8]) {
        let fd = connection.fd();
        if let Err(reason) = set.insert(NonblockingConnection::new(connection, unsent)) {
            self.remove(set, fd, &reason);
        }
    }

    /// From now on connections are finished: each is closed when it has been quiet for a
    /// while.
    pub(super) fn finish_all(&mut self, set: &mut ConnectionSet) {
        set.leaving = Some(self.linger_timeouts());
        for entry in set.connections.values_mut() {
            entry.connection.touch(set.leaving);
        }
        self.update_all(set);
    }

    fn update_all(&mut self, set: &mut ConnectionSet) {
        let all: Vec<RawFd> = set.connections.keys().copied().collect();
        for fd in all {
            let Some(entry) = set.connections.get_mut(&fd) else { continue };
            if let Err(reason) = entry.update(fd, set.poller.as_ref(), &mut set.checks) {
                self.remove(set, fd, &reason);
            }
        }
    }

    /// Serves one connection of the set once, and closes it if it has ended.
    fn advance(&mut self, set: &mut ConnectionSet, fd: RawFd, is_ready: bool, buffer: &mut [u8]) {
        let Some(entry) = set.connections.get_mut(&fd) else { return };
        let advanced = entry.connection.advance(is_ready, set.leaving, buffer, self);
        let updated = advanced.and_then(|()| entry.update(fd, set.poller.as_ref(), &mut set.checks));
        if let Err(reason) = updated {
            self.remove(set, fd, &reason);
        }
    }

    fn remove(&mut self, set: &mut ConnectionSet, fd: RawFd, reason: &CloseReason) {
        if let Some(connection) = set.remove(fd) {
            self.close(connection.into_connection(), reason);
        }
    }

    /// Looks for a signal before a wait: a worker that never blocks is never interrupted.
    pub(super) fn check_signals(&mut self) {
        if wakeup::has_fired() {
            self.handle_interrupt();
        }
    }
}
