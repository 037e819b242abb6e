//! `client`: one connection to an echo server. It sends messages, or what stdin
//! has, prints what comes back, and compares it with what it has sent.
//!
//! One loop waits for whatever comes first: input, an answer, or room to send
//! more. So it can't come to a standstill in which both sides send and nobody
//! reads, however much there is.

pub mod bench;
mod error;
mod limit;
pub mod stream;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{IsTerminal, stdin, stdout};
use std::mem;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::slice::Iter;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc::{FD_SETSIZE, SIGPIPE};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd;
use signal_hook::low_level::emulate_default_handler;

use crate::client::stream::{CHUNK, ClientError, Connection, MAX_IN_FLIGHT};
use crate::config::{ClientOptions, LogConfig};
use crate::error::Error;
use crate::explain;
use crate::log::ProcessLabel;
use crate::text::{check_stdout, count, eprint_line};

/// Talks with the server that the user means, until every byte has come back.
///
/// # Errors
/// If one doesn't, or not as it was sent.
pub fn run(options: &ClientOptions) -> Result<(), Error> {
    check_stdout()?;
    crate::log::start(&LogConfig::for_client(options.explain), ProcessLabel::Client)?;
    let addresses = options.server.resolve("give its IP address")?;
    let mut connection = Connection::open(&addresses, options.timeout)?;
    connection.never_block()?;
    if connection.as_fd().as_raw_fd() as usize >= FD_SETSIZE {
        return Err(Error::plain("more descriptors are open than select(2) can watch; close some"));
    }
    let input = match options.messages.as_slice() {
        [] => Input::Stdin,
        messages => Input::Payloads(messages.iter()),
    };
    if matches!(input, Input::Stdin) && stdin().is_terminal() {
        let Connection { peer, local, .. } = connection;
        eprint_line(&format_args!("connected to {peer} from {local}; type lines, and Ctrl-D at the end"));
    }
    Session { connection, input, unsent: Vec::new(), awaited: VecDeque::new(), since: Instant::now() }.run()
}

/// Where the bytes come from.
enum Input<'a> {
    Payloads(Iter<'a, OsString>),
    Stdin,
    /// There are no more, and the server knows.
    Ended,
}

/// What the wait has ended with.
#[derive(Default)]
struct Ready {
    input: bool,
    answer: bool,
}

struct Session<'a> {
    connection: Connection,
    input: Input<'a>,
    /// To be sent, as soon as there is room.
    unsent: Vec<u8>,
    /// Sent, and not yet come back.
    awaited: VecDeque<u8>,
    /// Since when nothing has come back of what is due.
    since: Instant,
}

impl Session<'_> {
    fn run(mut self) -> Result<(), Error> {
        let mut buffer = vec![0; CHUNK];
        loop {
            self.next_message()?;
            self.send()?;
            let is_overdue = self.is_due() && self.connection.is_overdue(self.since);
            let ready = self.wait()?;
            if ready.answer && self.receive(&mut buffer)?.is_break() {
                return Ok(());
            }
            if ready.input {
                self.read(&mut buffer)?;
            }
            if is_overdue && !ready.answer {
                return self.give_up();
            }
        }
    }

    /// Takes the next message when all of the last one has come back, until there is
    /// none left.
    fn next_message(&mut self) -> Result<(), Error> {
        if let Input::Payloads(messages) = &mut self.input
            && self.unsent.is_empty()
            && self.awaited.is_empty()
        {
            let message = messages.next();
            self.take(message.map(|message| [message.as_bytes(), b"\n"].concat()))?;
        }
        Ok(())
    }

    /// Reads what stdin has.
    fn read(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        match unistd::read(stdin().as_fd(), buffer) {
            Ok(0) => self.take(None),
            Ok(length) => self.take(Some(buffer[..length].into())),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(()),
            Err(error) => Err(Error::new("read stdin", &error.into(), "look where it comes from")),
        }
    }

    /// Takes bytes to be sent; nothing is the end of all input.
    fn take(&mut self, bytes: Option<Vec<u8>>) -> Result<(), Error> {
        if !self.is_due() {
            self.since = Instant::now();
        }
        match bytes {
            Some(bytes) => self.unsent = bytes,
            None => {
                self.input = Input::Ended;
                self.connection.half_close()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        if !self.unsent.is_empty() {
            let sent = self.connection.send(&self.unsent)?;
            let rest = self.unsent.split_off(sent);
            self.awaited.extend(mem::replace(&mut self.unsent, rest));
        }
        Ok(())
    }

    /// Receives what has come, prints it, and compares it. Break: it was the end of
    /// file, and all had come before.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<ControlFlow<()>, Error> {
        let got = match self.connection.receive(buffer) {
            Ok(None) => return Ok(Continue(())),
            Ok(Some(0)) if self.is_complete() => return Ok(Break(())),
            Ok(Some(0)) => return Err(ClientError::lost(&self.connection).into()),
            Ok(Some(length)) => &buffer[..length],
            Err(error) if self.is_complete() => {
                eprint_line(&error);
                return Ok(Break(()));
            }
            Err(error) => return Err(error.into()),
        };
        print(got)?;
        self.since = Instant::now();
        let expected: Vec<u8> = self.awaited.drain(..got.len().min(self.awaited.len())).collect();
        self.connection.check(&expected, &got[..expected.len()])?;
        if expected.len() < got.len() {
            Err(ClientError::too_much(&self.connection).into())
        } else {
            Ok(Continue(()))
        }
    }

    /// Sleeps until there is an answer, or input that we have room for, or room for
    /// what is to be sent; or until patience ends. By select: on macOS poll doesn't
    /// wait for terminals.
    fn wait(&self) -> Result<Ready, Error> {
        let (stdin, socket) = (stdin(), self.connection.as_fd());
        let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
        readable.insert(socket);
        let hungry = matches!(self.input, Input::Stdin) && self.awaited.len() < MAX_IN_FLIGHT;
        if hungry && self.unsent.is_empty() {
            readable.insert(stdin.as_fd());
        }
        if !self.unsent.is_empty() {
            writable.insert(socket);
        }
        let deadline = if self.is_due() { self.connection.deadline(self.since) } else { None };
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        let mut left = left.map(|left| TimeVal::microseconds(left.as_micros() as i64 + 1));
        explain!("select(): asleep until {}", self.what_for());
        match select(None, &mut readable, &mut writable, None, left.as_mut()) {
            Ok(_) => Ok(Ready { input: readable.contains(stdin.as_fd()), answer: readable.contains(socket) }),
            Err(Errno::EINTR) => Ok(Ready::default()),
            Err(error) => Err(Error::new("wait for the server", &error.into(), "try again")),
        }
    }

    fn what_for(&self) -> &'static str {
        match (&self.input, self.unsent.is_empty()) {
            (_, false) => "there is room to send more, or something comes back",
            (Input::Payloads(_), true) => "the message comes back",
            (Input::Stdin, true) => "there is a line to send, or something comes back",
            (Input::Ended, true) => "the rest comes back, and the server closes",
        }
    }

    /// Has the server anything to do for us?
    fn is_due(&self) -> bool {
        !self.unsent.is_empty() || !self.awaited.is_empty() || matches!(self.input, Input::Ended)
    }

    /// Nothing is left to be done but to close.
    fn is_complete(&self) -> bool {
        self.unsent.is_empty() && self.awaited.is_empty() && matches!(self.input, Input::Ended)
    }

    fn give_up(&self) -> Result<(), Error> {
        if self.is_complete() {
            let bytes = count(self.connection.sent, "byte");
            eprint_line(&format_args!("all {bytes} came back, but the server doesn't close its side"));
            return Ok(());
        }
        Err(ClientError::overdue(&self.connection).into())
    }
}

/// By the bare call: what our reader's pipe has no room for must not be forgotten, should
/// somebody have set it to O_NONBLOCK.
fn print(mut bytes: &[u8]) -> Result<(), Error> {
    let stdout = stdout();
    while !bytes.is_empty() {
        match unistd::write(&stdout, bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                let mut output = [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)];
                let _ = poll(&mut output, PollTimeout::NONE);
            }
            // Who reads no further ends us, as it does with cat.
            Err(Errno::EPIPE) => {
                let _ = emulate_default_handler(SIGPIPE);
                return Err(Error::plain("nobody reads stdout any more"));
            }
            Err(error) => return Err(Error::new("write to stdout", &error.into(), "look where it leads")),
        }
    }
    Ok(())
}
