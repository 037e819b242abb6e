//! How a worker accepts a client, and what it does when that fails: the errors of
//! accept(2), sorted.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

use log::{Level, debug, error, info, log_enabled, warn};
use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};

use super::{ListenerState, Peer, Worker};
use crate::echo::{Connection, WorkerHooks};
use crate::error::{shortage, strerror};
use crate::explain;
use crate::private_counter;
use crate::sys::signal;
use crate::text::count;

/// The wait when the system lacks what accept needs. Without it the worker
/// would ask some 200,000 times a second: EMFILE comes without a client, too.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

/// So many clients in a row may vanish before they are accepted; then something
/// else is wrong, and the worker pauses between attempts.
const VANISHED_IN_A_ROW: u32 = 10;

/// What to do when accept fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AcceptAction {
    /// A signal, or the idle time-out: look what there is to do.
    Look,
    /// That one client is gone; on with the next.
    Again,
    /// The system lacks something; try later.
    Pause,
    /// It will never work again.
    Leave,
}

impl AcceptAction {
    /// Sorts the errors of accept(2), which hands on those of the network too.
    pub(super) fn to(error: Errno) -> AcceptAction {
        match error {
            Errno::EINTR | Errno::EAGAIN => AcceptAction::Look,
            Errno::ECONNABORTED
            | Errno::EPROTO
            | Errno::EPERM
            | Errno::ENETDOWN
            | Errno::ENOPROTOOPT
            | Errno::EHOSTDOWN
            | Errno::EHOSTUNREACH
            | Errno::EOPNOTSUPP
            | Errno::ENETUNREACH
            | Errno::ETIMEDOUT => AcceptAction::Again,
            Errno::EBADF | Errno::EFAULT | Errno::EINVAL | Errno::ENOTSOCK => AcceptAction::Leave,
            // EMFILE, ENFILE, ENOBUFS, ENOMEM, and whatever we don't know.
            _ => AcceptAction::Pause,
        }
    }
}

impl Worker {
    /// Blocks in accept. An error says why there is no client; what it asks for
    /// is done already.
    pub(super) fn accept(&mut self) -> Result<Connection, AcceptAction> {
        let mut asleep_since = None;
        loop {
            let ListenerState::Open(listener) = &self.listener_state else { return Err(AcceptAction::Leave) };
            let (fd, idle_timeout) = (listener.fd(), listener.idle_timeout());
            let asleep_since = *asleep_since.get_or_insert_with(|| {
                explain!("accept({fd}): asleep until a client connects");
                Instant::now()
            });
            let called = Instant::now();
            let error = match listener.accept() {
                Ok((socket, peer)) => {
                    let new = socket.as_raw_fd();
                    explain!(
                        "accept({fd}) = {new}, after {:.1?}: woken; {new} is a new socket on the same port, {}, \
                         for the client at {} alone; {fd} goes on listening",
                        asleep_since.elapsed(),
                        Peer(socket.local_addr().ok().and_then(|local| local.as_socket())),
                        Peer(peer)
                    );
                    self.count_accepted(peer, new);
                    return Ok(Connection::new(socket, peer, idle_timeout));
                }
                Err(error) => Errno::try_from(error).unwrap_or(Errno::UnknownErrno),
            };
            // The socket's flags or time-outs are not ours any more: called again, accept would
            // return at once again. The parent puts them right when this worker has left.
            let is_spoilt = error == Errno::EAGAIN && listener.is_too_early(called.elapsed());
            let answer =
                if is_spoilt && !self.is_stopping() { AcceptAction::Leave } else { AcceptAction::to(error) };
            match answer {
                AcceptAction::Look => self.handle_interrupt(),
                _ => self.accept_failed(answer, error),
            }
            if answer != AcceptAction::Look || self.is_stopping() {
                explain!("accept({fd}) = {error:?}: {}; no client this time", strerror(&error.into()));
                return Err(answer);
            }
        }
    }

    /// Counts the client twice: in this process's own memory, and where all
    /// processes can see it.
    fn count_accepted(&mut self, peer: Option<SocketAddr>, fd: RawFd) {
        if self.failures > 0 {
            info!("accepting again, after {}", count(self.failures.into(), "failure"));
            self.failures = 0;
        }
        let private = private_counter::count();
        self.row.accepted(peer, private);
        if log_enabled!(Level::Info) {
            // Of two who count at once, one at least must see both.
            fence(SeqCst);
            info!(
                "accepted {} as descriptor {fd}; private count {private} at {:#x}, shared total {}",
                Peer(peer),
                private_counter::address(),
                self.scoreboard.served().connections
            );
        }
    }

    /// Says what is wrong with accept, and pauses where that may help.
    fn accept_failed(&mut self, answer: AcceptAction, error: Errno) {
        self.failures += 1;
        let error = error.into();
        let words = strerror(&error);
        match answer {
            AcceptAction::Leave => {
                error!("accept: {words}");
                self.listener_state = ListenerState::Broken;
                signal::request_stop();
            }
            AcceptAction::Again if self.failures < VANISHED_IN_A_ROW => debug!("accept: {words}"),
            _ => {
                // Said once: it may go on for hours.
                if self.failures == 1 || self.failures == VANISHED_IN_A_ROW {
                    let remedy = shortage(&error).map_or(String::new(), |remedy| format!("; {remedy}"));
                    warn!(
                        "cannot accept: {words}; clients wait in the queue while we try again every \
                         {PAUSE:?}{remedy}"
                    );
                }
                self.pause();
            }
        }
    }

    /// Waits until the system may have what it lacks, and looks at what a signal says.
    pub(super) fn pause(&mut self) {
        if sleep_until_later() == Err(Errno::EINTR) {
            self.handle_interrupt();
        }
    }
}

/// Sleeps for [`PAUSE`], or until a signal comes, which is `EINTR`.
pub(super) fn sleep_until_later() -> nix::Result<()> {
    poll(&mut [], PollTimeout::try_from(PAUSE).unwrap_or(PollTimeout::ZERO)).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_of_accept_has_its_answer() {
        for (error, answer) in [
            (Errno::EINTR, AcceptAction::Look),
            (Errno::EAGAIN, AcceptAction::Look),
            (Errno::ECONNABORTED, AcceptAction::Again),
            (Errno::EPROTO, AcceptAction::Again),
            (Errno::ENETUNREACH, AcceptAction::Again),
            (Errno::EMFILE, AcceptAction::Pause),
            (Errno::ENFILE, AcceptAction::Pause),
            (Errno::ENOBUFS, AcceptAction::Pause),
            (Errno::ENOMEM, AcceptAction::Pause),
            (Errno::EBADF, AcceptAction::Leave),
            (Errno::EINVAL, AcceptAction::Leave),
        ] {
            assert_eq!(AcceptAction::to(error), answer, "{error}");
        }
    }
}
