//! `client` where the input may be longer than the buffers on the way hold: one loop waits for
//! whichever comes first, input, an answer, or room to send more. So client and server never
//! wait for each other in send, however much there is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::stdin;
use std::ops::ControlFlow::{self, Break, Continue};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::OsStrExt;
use std::slice::Iter;
use std::time::Instant;

use nix::errno::Errno;
use nix::libc::FD_SETSIZE;
use nix::sys::select::{FdSet, select};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd;

use super::stream::{CHUNK, MAX_IN_FLIGHT, Stream, time_left};
use super::{print, report_missing_close};
use crate::error::Error;
use crate::log::narrate::client as narrate;

/// Where the bytes come from.
pub(super) enum Input<'a> {
    Messages(Iter<'a, OsString>),
    Stdin,
    /// There are no more, and the server has been told.
    Ended,
}

pub(super) struct Session<'a> {
    stream: Stream,
    input: Input<'a>,
    /// Bytes to be sent as soon as there is room.
    unsent: Vec<u8>,
    /// Bytes that have been sent, and have not come back yet.
    awaited: VecDeque<u8>,
    /// When a byte last came back, or the first of those that are due was taken.
    since: Instant,
}

impl<'a> Session<'a> {
    /// Makes the stream non-blocking, because client and server must not wait for each other.
    pub(super) fn new(mut stream: Stream, input: Input<'a>) -> Result<Session<'a>, Error> {
        stream.set_nonblocking()?;
        if stream.as_fd().as_raw_fd() as usize >= FD_SETSIZE {
            return Err(Error::plain("more descriptors are open than select(2) can watch; close some"));
        }
        let (unsent, awaited, since) = (Vec::new(), VecDeque::new(), Instant::now());
        Ok(Session { stream, input, unsent, awaited, since })
    }

    /// Sends and receives, until every byte has come back.
    pub(super) fn run(mut self) -> Result<(), Error> {
        let mut buffer = vec![0; CHUNK];
        loop {
            self.next_message()?;
            self.send()?;
            let has_input = self.wait()?;
            if self.receive(&mut buffer)?.is_break() {
                return Ok(());
            }
            if has_input {
                self.read(&mut buffer)?;
            }
        }
    }

    /// Takes the next message, or the end after the last one, when all has come back.
    fn next_message(&mut self) -> Result<(), Error> {
        if self.is_echoed()
            && let Input::Messages(messages) = &mut self.input
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

    /// Takes bytes to be sent; None is the end of all input.
    fn take(&mut self, bytes: Option<Vec<u8>>) -> Result<(), Error> {
        self.since = self.due().unwrap_or_else(Instant::now);
        match bytes {
            Some(bytes) => self.unsent = bytes,
            None => {
                self.input = Input::Ended;
                self.stream.half_close()?;
            }
        }
        Ok(())
    }

    fn send(&mut self) -> Result<(), Error> {
        let sent = self.stream.send(&self.unsent)?;
        self.awaited.extend(self.unsent.drain(..sent));
        Ok(())
    }

    /// Receives what has come, prints it, and compares it. Break: it was the end of
    /// file, and all had come before.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<ControlFlow<()>, Error> {
        let got = match self.stream.receive(buffer, self.due()) {
            Ok(None) => return Ok(Continue(())),
            Ok(Some(0)) if self.is_complete() => return Ok(Break(())),
            Ok(Some(0)) => return Err(self.stream.lost().into()),
            Ok(Some(length)) => &buffer[..length],
            Err(error) if self.is_complete() => {
                report_missing_close(&self.stream, &error);
                return Ok(Break(()));
            }
            Err(error) => return Err(error.into()),
        };
        print(got)?;
        self.since = Instant::now();
        let expected: Vec<u8> = self.awaited.drain(..got.len().min(self.awaited.len())).collect();
        self.stream.check(&expected, &got[..expected.len()])?;
        if expected.len() < got.len() {
            Err(self.stream.transfer.too_much().into())
        } else {
            Ok(Continue(()))
        }
    }

    /// Waits until there is an answer, input that there is room for, or room for what is
    /// to be sent; but not beyond the deadline. True: there is input. By select: on macOS
    /// poll doesn't wait for terminals.
    fn wait(&self) -> Result<bool, Error> {
        let (stdin, socket) = (stdin(), self.stream.as_fd());
        let (mut readable, mut writable) = (FdSet::new(), FdSet::new());
        readable.insert(socket);
        if !self.unsent.is_empty() {
            writable.insert(socket);
        } else if matches!(self.input, Input::Stdin) && self.awaited.len() < MAX_IN_FLIGHT {
            readable.insert(stdin.as_fd());
        }
        let left = self.stream.deadline(self.due()).map(time_left);
        let mut left = left.map(|left| TimeVal::milliseconds(left.as_millis() as i64));
        narrate::selecting(self.awaited_event());
        match select(None, &mut readable, &mut writable, None, left.as_mut()) {
            Ok(_) => Ok(readable.contains(stdin.as_fd())),
            Err(Errno::EINTR) => Ok(false),
            Err(error) => Err(Error::new("wait for the server", &error.into(), "try again")),
        }
    }

    fn awaited_event(&self) -> &'static str {
        match (&self.input, self.unsent.is_empty()) {
            (_, false) => "there is room to send more, or something comes back",
            (Input::Messages(_), true) => "the message comes back",
            (Input::Stdin, true) => "there is a line to send, or something comes back",
            (Input::Ended, true) => "the rest comes back, and the server closes",
        }
    }

    /// Since when the server owes something: bytes, or its end of file.
    fn due(&self) -> Option<Instant> {
        (!self.is_echoed() || matches!(self.input, Input::Ended)).then_some(self.since)
    }

    fn is_echoed(&self) -> bool {
        self.unsent.is_empty() && self.awaited.is_empty()
    }

    /// Nothing is left to be done but to close.
    fn is_complete(&self) -> bool {
        self.is_echoed() && matches!(self.input, Input::Ended)
    }
}
