//! How a worker accepts a connection, and what it does when accept(2) fails: the errors of
//! accept, sorted by what they ask for.

use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log, log_enabled, warn};
use nix::errno::Errno;

use super::{ListenerState, Report, Worker, wakeup};
use crate::echo::{CloseReason, Connection, WorkerHooks};
use crate::error::{shortage, strerror};
use crate::log::narrate::worker as narrate;
use crate::private_counter;
use crate::sys::readiness;
use crate::text::count;

/// The wait when the system lacks what accept needs. Without it the worker would call
/// accept some 200,000 times a second: EMFILE comes without a connection, too.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// So many peers in a row may vanish before they are accepted. After that something
/// else is wrong, and the worker pauses between attempts.
const VANISHED_IN_A_ROW: u32 = 10;

/// What to do when accept fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptAction {
    /// A signal or the idle time-out has ended accept. The worker handles the signal.
    Interrupted,
    /// This one connection is gone, and the next one may be accepted.
    Retry,
    /// The system lacks something. Accept may work later.
    Pause,
    /// Accept will never work again.
    Leave,
}

impl AcceptAction {
    /// Sorts the errors of accept(2), which passes on those of the network, too.
    pub(super) fn after(error: Errno) -> AcceptAction {
        use Errno::*;
        match error {
            EINTR | EAGAIN => AcceptAction::Interrupted,
            // The connection was lost in the queue, or a firewall forbids it.
            ECONNABORTED | EPROTO | EPERM | ETIMEDOUT | ENOPROTOOPT | EOPNOTSUPP => AcceptAction::Retry,
            // The way to its peer was lost.
            ENETDOWN | ENETUNREACH | EHOSTDOWN | EHOSTUNREACH => AcceptAction::Retry,
            EBADF | EFAULT | EINVAL | ENOTSOCK => AcceptAction::Leave,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and errors that are not known here.
            _ => AcceptAction::Pause,
        }
    }
}

impl Worker {
    /// Blocks in accept.
    ///
    /// # Errors
    /// There is no connection. What the action asks for is done already.
    pub(super) fn accept(&mut self) -> Result<Connection, AcceptAction> {
        let mut asleep_since = None;
        loop {
            let ListenerState::Open(listener) = &self.listener_state else { return Err(AcceptAction::Leave) };
            let (fd, is_blocking) = (listener.fd(), listener.is_blocking());
            let since = *asleep_since.get_or_insert_with(|| {
                narrate::accept_blocks(fd);
                Instant::now()
            });
            match self.accept_once(since) {
                // The call is repeated.
                Err(AcceptAction::Interrupted) if is_blocking && self.may_accept() => {}
                Err(AcceptAction::Pause) => {
                    self.pause();
                    return Err(AcceptAction::Pause);
                }
                result => return result,
            }
        }
    }

    /// Makes one call of accept. `asleep_since`: when the first of several calls was made.
    ///
    /// # Errors
    /// There is no connection. The action is still to be done if it is a pause.
    pub(super) fn accept_once(&mut self, asleep_since: Instant) -> Result<Connection, AcceptAction> {
        let ListenerState::Open(listener) = &self.listener_state else { return Err(AcceptAction::Leave) };
        let fd = listener.fd();
        let called = Instant::now();
        // It would block for as long as no client connects, and all others of this worker wait.
        let is_made_blocking = listener.is_made_blocking();
        let accepted = if is_made_blocking { Err(Errno::EAGAIN.into()) } else { listener.accept() };
        let error = match accepted {
            Ok((socket, peer)) => {
                let mut connection = Connection::new(socket, peer, listener.idle_timeout());
                narrate::accepted(fd, &connection.socket, connection.peer, asleep_since);
                if self.proxy_protocol {
                    connection.expect_header();
                }
                self.count_accepted(&connection);
                return Ok(connection);
            }
            Err(error) => Errno::try_from(error).unwrap_or(Errno::UnknownErrno),
        };
        // Another process has changed the socket's flags or time-outs: accept would return
        // at once again and again. The parent repairs the socket when this worker has left.
        let is_spoilt =
            is_made_blocking || error == Errno::EAGAIN && listener.is_spurious_eagain(called.elapsed());
        let action = match is_spoilt && !self.is_stopping() {
            true => AcceptAction::Leave,
            false => AcceptAction::after(error),
        };
        let action = match action {
            AcceptAction::Interrupted => {
                if error == Errno::EINTR {
                    self.handle_interrupt();
                }
                action
            }
            _ => self.accept_failed(action, error),
        };
        if action != AcceptAction::Interrupted || self.is_stopping() {
            narrate::accept_failed(fd, error);
        }
        Err(action)
    }

    /// Counts the connection twice: in this process's own memory, and where all
    /// processes can see it.
    fn count_accepted(&mut self, connection: &Connection) {
        let failures = self.failures.swap(0, Relaxed);
        if failures > 0 {
            info!("accepting again, after {}", count(failures.into(), "failure"));
        }
        let private = private_counter::count();
        self.row.count_connection();
        self.clients.add(connection);
        if let Some(next) = self.next_thread.take() {
            next.unpark();
        }
        if private == self.limit {
            self.row.retire();
            self.wake_first_thread();
        }
        if self.row.is_to_report_full(self.scoreboard) {
            self.report(Report::Full);
        }
        if log_enabled!(Level::Info) {
            // For the shared total: of two workers that count at once, one at least must see
            // both counts.
            fence(SeqCst);
            info!(
                "accepted {} as descriptor {}; private count {private} at {:#x}, shared total {}",
                connection.peer,
                connection.fd(),
                private_counter::address(),
                self.scoreboard.served().connections
            );
        }
    }

    /// Logs what is wrong with accept. Returns what is still to be done.
    fn accept_failed(&mut self, action: AcceptAction, error: Errno) -> AcceptAction {
        let failures = self.failures.fetch_add(1, Relaxed) + 1;
        let error = error.into();
        let reason = strerror(&error);
        match action {
            AcceptAction::Leave => {
                error!("accept: {reason}");
                self.listener_state = ListenerState::Broken;
                self.wake_first_thread();
                wakeup::request_stop();
                action
            }
            AcceptAction::Retry if failures < VANISHED_IN_A_ROW => {
                debug!("accept: {reason}");
                action
            }
            _ => {
                // Logged once: it may go on for hours.
                if failures == 1 || failures == VANISHED_IN_A_ROW {
                    let remedy = shortage(&error).map_or(String::new(), |remedy| format!("; {remedy}"));
                    warn!(
                        "cannot accept: {reason}; clients wait in the queue while we try again every \
                         {PAUSE:?}{remedy}"
                    );
                }
                AcceptAction::Pause
            }
        }
    }

    /// Waits until the system may have what it lacks, or a signal comes.
    pub(super) fn pause(&mut self) {
        if readiness::sleep(PAUSE) == Err(Errno::EINTR) {
            self.handle_interrupt();
        }
    }

    /// Closes the connection, and logs how it has ended.
    pub(super) fn close(&self, connection: Connection, reason: CloseReason) {
        let (fd, peer, echoed) = (connection.fd(), connection.peer, connection.echoed);
        self.clients.remove(&connection);
        let reason = reason.or_no_header(&connection);
        if reason.is_fault() {
            self.row.count_bad_header();
        }
        drop(connection);
        narrate::closed(fd);
        let level = if reason.is_fault() { Level::Warn } else { Level::Info };
        log!(level, "closed {peer}: {reason}, {} echoed", count(echoed, "byte"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_accept_has_its_action() {
        for (error, action) in [
            (Errno::EINTR, AcceptAction::Interrupted),
            (Errno::EAGAIN, AcceptAction::Interrupted),
            (Errno::ECONNABORTED, AcceptAction::Retry),
            (Errno::EPROTO, AcceptAction::Retry),
            (Errno::ENETUNREACH, AcceptAction::Retry),
            (Errno::EMFILE, AcceptAction::Pause),
            (Errno::ENFILE, AcceptAction::Pause),
            (Errno::ENOBUFS, AcceptAction::Pause),
            (Errno::ENOMEM, AcceptAction::Pause),
            (Errno::EBADF, AcceptAction::Leave),
            (Errno::EINVAL, AcceptAction::Leave),
        ] {
            assert_eq!(AcceptAction::after(error), action, "{error}");
        }
    }
}
