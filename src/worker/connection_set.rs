//! The connections that one thread serves, what each waits for, and when each is to be
//! checked. Nothing here receives, sends, or waits: that is done in `multiplex`.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use super::accept::PAUSE;
use super::linger::LingerTimeouts;
use super::nonblocking::NonblockingConnection;
use crate::echo::CloseReason;
use crate::listener::Listener;
use crate::sys::poller::{Interest, Poller};

/// The connections of one process, what each waits for, and when each is to be checked.
#[derive(Debug, Default)]
pub(super) struct ConnectionSet {
    /// None: nothing was waited for yet.
    pub poller: Option<Poller>,
    pub connections: HashMap<RawFd, Entry>,
    /// One check for each connection at most, in the order of time. A wait that goes on costs
    /// nothing: the number of quiet connections does not matter.
    pub checks: BTreeSet<(Instant, RawFd)>,
    /// None: they are served for as long as their clients like.
    pub leaving: Option<LingerTimeouts>,
    /// The listening socket, while the poller watches it. Other processes have it, too, so
    /// it would not leave the poller's list when this process closed it.
    pub listener: Option<Arc<Listener>>,
    /// After a shortage: when to accept again.
    pub paused_until: Option<Instant>,
    /// The shortage was logged: it may go on for hours.
    pub has_warned: bool,
    /// Descriptors that the latest wait has reported.
    pub ready: Vec<RawFd>,
}

/// A connection, and what is noted of it elsewhere in the set.
#[derive(Debug)]
pub(super) struct Entry {
    pub connection: NonblockingConnection,
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
    pub fn update(
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

    /// Accepts no connection for a while.
    pub fn pause(&mut self) {
        self.paused_until = Some(Instant::now() + PAUSE);
    }

    /// Is no connection to be accepted now?
    pub fn is_paused(&mut self) -> bool {
        self.paused_until.take_if(|until| *until <= Instant::now());
        self.paused_until.is_some()
    }

    /// Adds a connection.
    ///
    /// # Errors
    /// As [`Entry::update`].
    pub fn insert(&mut self, mut connection: NonblockingConnection) -> Result<(), CloseReason> {
        connection.touch(self.leaving);
        let fd = connection.fd();
        let entry =
            self.connections.entry(fd).insert_entry(Entry { connection, interest: None, check: None });
        entry.into_mut().update(fd, self.poller.as_ref(), &mut self.checks)
    }

    pub fn remove(&mut self, fd: RawFd) -> Option<NonblockingConnection> {
        let entry = self.connections.remove(&fd)?;
        if let Some(check) = entry.check {
            self.checks.remove(&(check, fd));
        }
        Some(entry.connection)
    }

    /// Takes the next check that is due off the list.
    pub fn next_due(&mut self, now: Instant) -> Option<RawFd> {
        let (_, fd) = self.checks.first().filter(|(check, _)| *check <= now).copied()?;
        self.checks.pop_first();
        if let Some(entry) = self.connections.get_mut(&fd) {
            entry.check = None;
        }
        Some(fd)
    }

    /// Watches the listening socket; None: no longer.
    ///
    /// # Errors
    /// As [`Entry::update`].
    pub fn watch(&mut self, listener: Option<Arc<Listener>>) -> nix::Result<()> {
        let interest = |listener: &Option<_>| listener.as_ref().map(|_| Interest::Connection);
        let (before, after) = (interest(&self.listener), interest(&listener));
        let socket = self.listener.as_ref().or(listener.as_ref());
        if let (Some(poller), Some(socket)) = (&self.poller, socket) {
            poller.change(socket.as_ref(), before, after)?;
            self.listener = listener;
        }
        Ok(())
    }
}
