//! How a worker that leaves parts from its clients: without a loss, and from all
//! of them at once, so that nobody waits for a neighbour who never falls quiet
//! or never reads. The one place where one process serves several clients.
//!
//! Closing at once would lose bytes: a close with bytes unread sends a reset, and
//! that destroys those on their way to the client (RFC 1122, 4.2.2.13). So each
//! client is served until its line has been quiet for a moment; then we say that
//! no more comes, and read until it says the same, for another moment.

use std::io::{self, ErrorKind, Read};
use std::net::Shutdown;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, poll};

use crate::echo::{self, Client, End, Host};
use crate::explain;
use crate::logger::count;
use crate::sys::socket::timeout_until;

/// Parts from all clients; `close` is given each one when it is done. The moment
/// is `patience` long.
pub fn part_from(
    clients: Vec<Client>,
    patience: Duration,
    buffer: &mut [u8],
    host: &mut impl Host,
    close: impl Fn(Client, &End),
) {
    if !clients.is_empty() {
        let whose = count(clients.len() as u64, "client");
        explain!("poll(): {whose} to part from, each when it has been quiet for {patience:.1?}");
    }
    let mut guests: Vec<_> = clients.into_iter().map(|client| Guest::new(client, patience)).collect();
    while !guests.is_empty() {
        host.receiving();
        let ready = wait(&guests, host);
        let mut staying = Vec::with_capacity(guests.len());
        for (mut guest, ready) in guests.into_iter().zip(ready) {
            match guest.attend(ready, patience, buffer, host) {
                Break(end) => close(guest.client, &end),
                Continue(()) => staying.push(guest),
            }
        }
        guests = staying;
    }
}

/// Blocks until a guest is ready for what it waits for, or a deadline is due.
/// Says of each whether it is ready.
fn wait(guests: &[Guest], host: &mut impl Host) -> Vec<bool> {
    let mut sources: Vec<_> = guests.iter().map(Guest::source).collect();
    let deadline = guests.iter().filter_map(|guest| guest.deadline).min();
    if poll(&mut sources, timeout_until(deadline)) == Err(Errno::EINTR) {
        host.look_around();
    }
    sources.iter().map(|source| source.any() == Some(true)).collect()
}

struct Guest {
    client: Client,
    stage: Stage,
    /// Received, and not yet taken back by the client.
    pending: Vec<u8>,
    /// None: as long as it takes.
    deadline: Option<Instant>,
}

enum Stage {
    Echoing,
    /// We have said that no more comes.
    Lingering,
}

impl Guest {
    fn new(client: Client, patience: Duration) -> Guest {
        // This connection's flag alone: the listening socket has its own. An
        // error would be for a client that is gone, as recv will tell.
        let _ = client.socket.set_nonblocking(true);
        Guest {
            client,
            stage: Stage::Echoing,
            pending: Vec::new(),
            deadline: Some(Instant::now() + patience),
        }
    }

    fn source(&self) -> PollFd<'_> {
        let wanted = if self.pending.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLOUT };
        PollFd::new(self.client.socket.as_fd(), wanted)
    }

    /// Serves the guest once, if it is ready, and does what is due. Never blocks.
    fn attend(
        &mut self,
        ready: bool,
        patience: Duration,
        buffer: &mut [u8],
        host: &mut impl Host,
    ) -> ControlFlow<End> {
        if ready {
            match self.stage {
                Stage::Echoing => self.echo_once(patience, buffer, host)?,
                Stage::Lingering => match self.client.socket.read(buffer) {
                    Ok(0) => {
                        explain!(
                            "recv({}) = 0: end of file, the client has heard",
                            self.client.socket.as_raw_fd()
                        );
                        return Break(End::Left);
                    }
                    // Too late to be echoed, and read all the same: see above.
                    Ok(_) => {}
                    Err(error) => may_go_on(error)?,
                },
            }
        }
        let now = Instant::now();
        if self.deadline.is_none_or(|deadline| now < deadline) {
            return Continue(());
        }
        match self.stage {
            Stage::Echoing if !self.pending.is_empty() => Break(End::Idle),
            Stage::Echoing => {
                let fd = self.client.socket.as_raw_fd();
                self.stage = Stage::Lingering;
                self.deadline = Some(now + patience);
                self.client
                    .socket
                    .shutdown(Shutdown::Write)
                    .map_or_else(|error| Break(End::Lost(error)), Continue)?;
                explain!("shutdown({fd}, SHUT_WR) = 0: the client is quiet, and reads an end of file now");
                Continue(())
            }
            Stage::Lingering => {
                explain!("poll() = 0: the client hasn't closed within {patience:.1?}, so we close first");
                Break(End::Left)
            }
        }
    }

    /// One recv, unless the last one's bytes are still here, and one send.
    fn echo_once(&mut self, patience: Duration, buffer: &mut [u8], host: &mut impl Host) -> ControlFlow<End> {
        let fd = self.client.socket.as_raw_fd();
        if self.pending.is_empty() {
            match self.client.socket.read(buffer) {
                Ok(0) => {
                    explain!("recv({fd}) = 0: end of file, the client sends no more");
                    return Break(End::EndOfFile);
                }
                Ok(length) => {
                    explain!("recv({fd}) = {length}: so many bytes have come");
                    self.pending.extend_from_slice(&buffer[..length]);
                }
                Err(error) => return may_go_on(error),
            }
        }
        match echo::send(&mut self.client, &self.pending, host) {
            Ok(sent) => drop(self.pending.drain(..sent)),
            Err(error) => may_go_on(error)?,
        }
        let limit = if self.pending.is_empty() { Some(patience) } else { self.client.idle_timeout };
        self.deadline = limit.map(|limit| Instant::now() + limit);
        Continue(())
    }
}

fn may_go_on(error: io::Error) -> ControlFlow<End> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::Interrupted => Continue(()),
        _ => Break(End::Lost(error)),
    }
}
