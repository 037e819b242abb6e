//! One of the clients that measure, with one connection at a time.
//!
//! A client that has a thread of its own blocks in connect, send and recv. One of several
//! in a thread never blocks: it returns a `Step`, and is advanced again when that is over.

use std::mem;
use std::net::SocketAddr;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

use super::Shared;
use super::connecting::{Connecting, Progress};
use super::messages::{Messages, Turn};
use crate::client::{ClientError, Kind, Stream};
use crate::config::Mode;
use crate::sys::poller::{Interest, Poller};

/// A message up to this length, in bytes, fits into any buffers on the way, and can be
/// sent by a send that blocks before anything is received.
const SMALL: usize = 16 * 1024;

/// So often a client sends and receives before others of its thread have their turn.
const TURNS: u32 = 16;

/// What a client waits for.
#[derive(Debug)]
pub(super) enum Step {
    /// Its socket, unless that is none of its interest; but no longer than until then.
    Wait { interest: Option<Interest>, until: Option<Instant> },
    /// Nothing: it has come to the end of the phase.
    Done,
}

/// Its connection.
#[derive(Debug, Default)]
enum State {
    #[default]
    Closed,
    Connecting(Connecting),
    Open(Stream),
    /// Half-closed at that time, after the last message.
    Closing(Stream, Instant),
}

/// A client.
pub(super) struct BenchClient<'a> {
    shared: &'a Shared,
    messages: Messages<'a>,
    /// Whether it has a thread of its own, and may block.
    blocks: bool,
    state: State,
    /// What the poller watches its socket for, if it does.
    watched: Option<Interest>,
    /// Which of the server's addresses is tried.
    address: usize,
    /// The address at which the server has answered before.
    server: Option<SocketAddr>,
    /// Whether it is through, or would only fail again.
    has_ended: bool,
}

impl<'a> BenchClient<'a> {
    /// A client that sends up to `share` messages, or as many as there is time for.
    pub(super) fn new(shared: &'a Shared, index: u64, share: Option<u64>, blocks: bool) -> BenchClient<'a> {
        BenchClient {
            shared,
            messages: Messages::new(shared, index, share),
            blocks,
            state: State::Closed,
            watched: None,
            address: 0,
            server: None,
            has_ended: false,
        }
    }

    /// The first phase: opens the connection, if it is to be kept.
    pub(super) fn open(&mut self, _: &mut [u8]) -> Step {
        loop {
            let step = match mem::take(&mut self.state) {
                _ if self.connects_anew() || self.has_ended => return Step::Done,
                State::Open(stream) => {
                    self.state = State::Open(stream);
                    return Step::Done;
                }
                state => self.connect(state),
            };
            match step {
                Ok(Continue(())) => {}
                Ok(Break(step)) => return step,
                Err(error) => {
                    self.fail(error);
                    return Step::Done;
                }
            }
        }
    }

    /// The second phase: sends all messages of this client, and takes them back.
    pub(super) fn advance(&mut self, buffer: &mut [u8]) -> Step {
        loop {
            let step = match mem::take(&mut self.state) {
                State::Closed => match self.before_connecting() {
                    Some(step) => return step,
                    None => self.connect(State::Closed),
                },
                State::Open(stream) => self.exchange(stream, buffer),
                State::Closing(stream, since) => return self.close(stream, since, buffer),
                connecting => self.connect(connecting),
            };
            match step {
                Ok(Continue(())) => {}
                Ok(Break(step)) => return step,
                Err(error) => self.fail(error),
            }
        }
    }

    /// Sees to it that `poller` reports the socket when it is ready. Returns its number.
    ///
    /// # Errors
    /// This machine has run out of memory, or of watches.
    pub(super) fn watch(
        &mut self,
        poller: &Poller,
        interest: Option<Interest>,
    ) -> Result<Option<RawFd>, ClientError> {
        let socket = match &self.state {
            State::Closed => return Ok(None),
            State::Connecting(connecting) => connecting.as_fd(),
            State::Open(stream) | State::Closing(stream, _) => stream.as_fd(),
        };
        let changed = poller.change(socket, self.watched, interest);
        changed.map_err(|error| ClientError::connecting(self.peer(), &error.into(), None))?;
        self.watched = interest;
        Ok(Some(socket.as_raw_fd()))
    }

    /// Counts the messages that an error has cost, and closes the connection.
    pub(super) fn fail(&mut self, error: ClientError) {
        let may_succeed = matches!(error.kind, Kind::Wrong | Kind::Lost | Kind::Reset);
        self.has_ended |= !may_succeed;
        self.shared.stats().record_error(self.messages.in_flight().max(1) as u64, error);
        self.forget_connection();
    }

    /// The connection is closed.
    fn forget_connection(&mut self) {
        self.messages.drop_all();
        (self.state, self.watched) = (State::Closed, None);
    }

    /// Whether each message has a connection of its own.
    fn connects_anew(&self) -> bool {
        self.shared.options.mode == Mode::Connect
    }

    /// The address to connect to.
    fn peer(&self) -> SocketAddr {
        self.server.unwrap_or(self.shared.addresses[self.address])
    }

    /// What is to be done first, if anything is: a connection for one message is opened
    /// when that has begun, any other as long as there are messages.
    fn before_connecting(&mut self) -> Option<Step> {
        let turn = match self.connects_anew() {
            _ if self.has_ended => Turn::NoMore,
            true if self.messages.in_flight() == 0 => self.messages.begin(),
            true => Turn::Begun,
            false => self.messages.next_due(Instant::now()).map_or(Turn::NoMore, |_| Turn::Begun),
        };
        match turn {
            Turn::Begun => None,
            Turn::Later(due) => Some(Step::Wait { interest: None, until: Some(due) }),
            Turn::NoMore => Some(Step::Done),
        }
    }

    /// From no connection to an open one.
    fn connect(&mut self, state: State) -> Result<ControlFlow<Step>, ClientError> {
        let (timeout, limit) = (self.shared.options.server.timeout, self.shared.limit());
        let progress = match state {
            State::Connecting(connecting) => connecting.advance(),
            _ if self.blocks => Stream::open(&[self.peer()], timeout, limit).map(Progress::Connected),
            _ => Connecting::start(self.peer(), timeout, limit).map(Progress::Pending),
        };
        match progress {
            Ok(Progress::Connected(stream)) => self.connected(stream).map(Continue),
            Ok(Progress::Pending(connecting)) => {
                let until = connecting.deadline;
                self.state = State::Connecting(connecting);
                Ok(Break(Step::Wait { interest: Some(Interest::Room), until }))
            }
            Err(error) if self.server.is_some() || self.address + 1 == self.shared.addresses.len() => {
                // If it is late, no worker has accepted it either.
                self.shared.stats().unanswered += u64::from(error.kind == Kind::Timeout);
                Err(error)
            }
            Err(_) => {
                self.address += 1;
                (self.state, self.watched) = (State::Closed, None);
                Ok(Continue(()))
            }
        }
    }

    fn connected(&mut self, mut stream: Stream) -> Result<(), ClientError> {
        if self.server.replace(stream.peer).is_none() {
            let is_local = stream.peer.ip().is_loopback() || stream.peer.ip() == stream.local.ip();
            self.shared.stats().server = is_local.then_some(stream.peer);
        }
        if let Some(version) = self.shared.options.server.proxy_header {
            stream.send_proxy_header(version)?;
        }
        if self.shared.options.mode == Mode::Stream || self.shared.options.size > SMALL {
            stream.set_nonblocking()?;
        }
        self.messages.since = Instant::now();
        self.state = State::Open(stream);
        Ok(())
    }

    /// Sends messages and takes them back, as the mode has it, until there is none left
    /// for this connection, or there is something to wait for.
    fn exchange(&mut self, mut stream: Stream, buffer: &mut [u8]) -> Result<ControlFlow<Step>, ClientError> {
        // If the connection was opened before the clock started, its limit was too early.
        stream.limit = self.shared.limit();
        let mut turns = 0;
        loop {
            let mut due = None;
            if self.messages.unsent == 0
                && self.messages.has_room()
                && let Turn::Later(then) = self.messages.begin()
            {
                due = Some(then);
            }
            let sent = self.messages.send(&mut stream)?;
            if self.messages.in_flight() == 0 {
                return Ok(self.pause(stream, due));
            }
            turns += 1;
            // The answer to a message that was just sent takes a while.
            let awaits_answer =
                sent > 0 && self.messages.unsent == 0 && self.shared.options.mode != Mode::Stream;
            let leaves = !stream.blocks && (awaits_answer || turns > TURNS);
            if leaves || (!self.messages.take_back(&mut stream, buffer)? && sent == 0) {
                let has_more = self.messages.unsent > 0 && !stream.is_reset;
                let interest = Some(if has_more { Interest::BytesOrRoom } else { Interest::Bytes });
                let until = stream.deadline(Some(self.messages.since)).into_iter().chain(due).min();
                self.state = State::Open(stream);
                return Ok(Break(Step::Wait { interest, until }));
            }
        }
    }

    /// Nothing is in flight: until the next message is due, or for good.
    fn pause(&mut self, mut stream: Stream, due: Option<Instant>) -> ControlFlow<Step> {
        if due.is_some() {
            self.state = State::Open(stream);
            return Break(Step::Wait { interest: None, until: due });
        }
        if self.connects_anew() {
            self.forget_connection();
            return Continue(());
        }
        match stream.half_close() {
            Ok(()) => self.state = State::Closing(stream, Instant::now()),
            Err(error) => self.end(Some(error)),
        }
        Continue(())
    }

    /// Waits until the server closes as well, without sending more.
    fn close(&mut self, mut stream: Stream, since: Instant, buffer: &mut [u8]) -> Step {
        match stream.receive(buffer, Some(since)) {
            Ok(None) => {
                let until = stream.deadline(Some(since));
                self.state = State::Closing(stream, since);
                return Step::Wait { interest: Some(Interest::Bytes), until };
            }
            Ok(Some(0)) => self.end(None),
            Ok(Some(_)) => self.end(Some(stream.transfer.too_much())),
            Err(error) => self.end(Some(error)),
        }
        Step::Done
    }

    /// All messages are through. What goes wrong then has cost none; only a byte too many
    /// counts as an error.
    fn end(&mut self, error: Option<ClientError>) {
        if let Some(error) = error {
            self.shared.stats().record_error(u64::from(error.kind == Kind::Wrong), error);
        }
        self.has_ended = true;
        self.forget_connection();
    }
}
