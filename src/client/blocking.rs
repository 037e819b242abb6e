//! `client` as introductions to sockets teach it: connect, send, recv, close, and each call
//! blocks. For messages on the command line, and for lines that are typed. Read it first.
//!
//! A message is sent, and received until all of it is back; then comes the next one. So an end
//! of file from the server is noticed when the next line has been typed and sent: meanwhile
//! the client blocks in read.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, stdin};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::unistd;

use super::waiting::Watcher;
use super::{ClientError, Stream, print, report_missing_close};
use crate::error::Error;
use crate::log::narrate::client as narrate;

/// The longest message that is sent by a blocking call, in bytes. Before the server has received
/// all of a longer one, it may have sent back more than the client's receive buffer holds: then
/// client and server would both block in send, for ever. This much fits into the send buffer of
/// a connection that is otherwise empty (Linux: 16 KiB at first, tcp(7), tcp_wmem; macOS: 128
/// KiB), so send returns even if the server never receives.
pub(super) const LONGEST: usize = 16 * 1024;

/// Do these messages fit, with a new line each?
pub(super) fn fit(messages: &[OsString]) -> bool {
    messages.iter().all(|message| message.len() < LONGEST)
}

/// Sends each message as a line, when the last one has come back.
pub(super) fn send_messages(mut stream: Stream, messages: &[OsString]) -> Result<(), Error> {
    let mut buffer = [0; LONGEST];
    for message in messages {
        let line = [message.as_bytes(), b"\n"].concat();
        send(&mut stream, &line)?;
        receive(&mut stream, &line, &mut buffer)?;
    }
    end(stream, &mut buffer)
}

/// Sends each line that is typed, until Ctrl-D.
pub(super) fn send_typed_lines(mut stream: Stream) -> Result<(), Error> {
    let watcher = Watcher::start(&stream);
    let mut buffer = [0; LONGEST];
    loop {
        let line = match read_line(&mut buffer)? {
            [] => return end(stream, &mut buffer),
            line => line.to_vec(),
        };
        send(&mut stream, &line)?;
        watcher.sent();
        receive(&mut stream, &line, &mut buffer)?;
        watcher.answered();
    }
}

/// Blocks until a line is typed: a terminal hands over one at a time. Empty: Ctrl-D.
fn read_line(buffer: &mut [u8]) -> Result<&[u8], Error> {
    narrate::reading();
    loop {
        match unistd::read(stdin().as_fd(), buffer) {
            Ok(length) => return Ok(&buffer[..length]),
            Err(Errno::EINTR) => {}
            // Another process has made the terminal non-blocking.
            Err(Errno::EAGAIN) => thread::sleep(Duration::from_millis(50)),
            Err(error) => return Err(Error::new("read stdin", &error.into(), "look where it comes from")),
        }
    }
}

/// Blocks until the kernel has taken all bytes. If the connection is reset, recv tells it.
fn send(stream: &mut Stream, mut bytes: &[u8]) -> Result<(), Error> {
    while !bytes.is_empty() {
        match stream.send(bytes)? {
            0 => break,
            sent => bytes = &bytes[sent..],
        }
    }
    Ok(())
}

/// Blocks until bytes come, which are due, or an end of file, which is 0 bytes; no longer than
/// the time-out of the socket, if it has one.
fn recv(stream: &Stream, buffer: &mut [u8], awaited_event: &str) -> Result<usize, ClientError> {
    narrate::recv_blocks(&stream.socket, awaited_event);
    loop {
        match (&stream.socket).read(buffer) {
            Ok(length) => {
                narrate::received(&stream.socket, length);
                return Ok(length);
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(stream.overdue()),
            Err(error) => return Err(stream.transfer.broken(&error)),
        }
    }
}

/// Blocks until all of `sent` has come back; prints it, and compares it.
fn receive(stream: &mut Stream, sent: &[u8], buffer: &mut [u8]) -> Result<(), Error> {
    let mut awaited = sent;
    while !awaited.is_empty() {
        let got = match recv(stream, buffer, "the message comes back")? {
            0 => return Err(stream.lost().into()),
            length => &buffer[..length],
        };
        print(got)?;
        let (expected, rest) = awaited.split_at(got.len().min(awaited.len()));
        stream.check(expected, &got[..expected.len()])?;
        if expected.len() < got.len() {
            return Err(stream.transfer.too_much().into());
        }
        awaited = rest;
    }
    Ok(())
}

/// Says that nothing more will be sent, and blocks until the server has closed its side.
fn end(mut stream: Stream, buffer: &mut [u8]) -> Result<(), Error> {
    stream.half_close()?;
    match recv(&stream, buffer, "the server closes its side") {
        Ok(0) => Ok(()),
        Ok(length) => {
            print(&buffer[..length])?;
            Err(stream.transfer.too_much().into())
        }
        Err(error) => {
            report_missing_close(&stream, &error);
            Ok(())
        }
    }
}
