//! Many connections in one thread: none of them ever blocks, and the worker blocks in one
//! place only, until one of them is ready or a check of one is due (multiplexing).
//!
//! With `--model multiplex` a worker serves so. Workers of all models finish their last
//! connections so. Which connections there are is in `connection_set`, and what one of them
//! does when it is its turn in `nonblocking`.

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Instant;

use log::warn;
use nix::errno::Errno;

use super::accept::{AcceptAction, PAUSE};
use super::connection_set::ConnectionSet;
use super::nonblocking::NonblockingConnection;
use super::{ListenerState, Worker, wakeup};
use crate::echo::{CloseReason, Connection, WorkerHooks};
use crate::error::strerror;
use crate::log::narrate::worker as narrate;
use crate::scoreboard::State;
use crate::sys::poller::Poller;

impl Worker {
    /// Serves up to `--clients` connections at once until this worker is asked to stop, or has
    /// accepted as many as it may and all of them have ended. Returns those that are still open.
    pub(super) fn serve_multiplexed(&mut self, buffer: &mut [u8]) -> ConnectionSet {
        self.row.set_state(State::Idle);
        let mut set = ConnectionSet::default();
        while self.may_accept() {
            let has_room = set.len() < self.clients_at_once;
            if self.serve_once(&mut set, has_room, buffer) && self.may_accept() {
                match self.accept_once(Instant::now()) {
                    Ok(connection) => {
                        // Removed and added again, the listening socket is the last in the
                        // kernel's list of those that wait: so each worker gets its share.
                        let _ = set.watch(None);
                        self.add(&mut set, connection, &[]);
                    }
                    Err(AcceptAction::Pause) => set.pause(),
                    Err(_) => {}
                }
            }
        }
        self.report_retiring(set.len());
        while !self.is_stopping() && !set.is_empty() {
            self.serve_once(&mut set, false, buffer);
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

    /// Waits until a connection is ready or a check is due; or, if `accepting`, until there is a
    /// connection in the accept queue. Serves those that are ready, and closes those that have
    /// ended. Returns whether there is a connection in the accept queue.
    pub(super) fn serve_once(&mut self, set: &mut ConnectionSet, accepting: bool, buffer: &mut [u8]) -> bool {
        self.check_signals();
        if set.leaving.is_some() {
            set.leaving = Some(self.linger_timeouts());
        }
        if set.poller.is_none() {
            self.open_poller(set);
        }
        let is_paused = set.is_paused();
        self.watch_listener(set, accepting && !is_paused);
        let check = set.checks.first().map(|(check, _)| *check);
        let deadline = check.into_iter().chain(set.paused_until.filter(|_| accepting)).min();
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

    /// Watches the listening socket if `accepting`. Pauses accepting if that is not possible.
    fn watch_listener(&mut self, set: &mut ConnectionSet, accepting: bool) {
        let wanted = match &self.listener_state {
            ListenerState::Open(_) if accepting && set.listener.is_some() => return,
            ListenerState::Open(listener) if accepting => Some(Arc::clone(listener)),
            _ => None,
        };
        if let Err(error) = set.watch(wanted) {
            set.pause();
            if !std::mem::replace(&mut set.has_warned, true) {
                warn!(
                    "cannot wait for connections: {}; trying again every {PAUSE:?}; free some memory, or raise \
                     fs.epoll.max_user_watches",
                    strerror(&error.into())
                );
            }
        }
    }

    /// Adds a connection with bytes `unsent`, which were received and not yet sent back.
    pub(super) fn add(&mut self, set: &mut ConnectionSet, connection: Connection, unsent: &[u8]) {
        let fd = connection.fd();
        if let Err(reason) = set.insert(NonblockingConnection::new(connection, unsent)) {
            self.has_cut |= self.is_stopping();
            set.pause();
            self.remove(set, fd, reason);
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
                self.remove(set, fd, reason);
            }
        }
    }

    /// Serves one connection of the set once, and closes it if it has ended.
    fn advance(&mut self, set: &mut ConnectionSet, fd: RawFd, is_ready: bool, buffer: &mut [u8]) {
        let Some(entry) = set.connections.get_mut(&fd) else { return };
        let advanced = entry.connection.advance(is_ready, set.leaving, buffer, self);
        let updated = advanced.and_then(|()| entry.update(fd, set.poller.as_ref(), &mut set.checks));
        if let Err(reason) = updated {
            self.remove(set, fd, reason);
        }
    }

    fn remove(&mut self, set: &mut ConnectionSet, fd: RawFd, reason: CloseReason) {
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
