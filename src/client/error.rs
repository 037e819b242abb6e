//! What can go wrong with a stream: its kind, which `bench` counts, and a line for the
//! user. A stream that has returned an error is of no further use.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use serde::Serialize;

use crate::error::{Error, shortage, strerror};
use crate::text::count;

/// What has gone wrong with a stream.
#[derive(Debug)]
pub struct ClientError {
    /// The kind, under which `bench` counts it.
    pub kind: Kind,
    text: String,
}

/// The kinds of error that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A byte came back that isn't the one that was sent, or that was never sent.
    Wrong,
    /// The server closed before all had come back.
    Lost,
    /// No socket listens at the address.
    Refused,
    /// The connection was reset: the server died, or gave the connection up.
    Reset,
    /// A byte, or the connection, was due for too long.
    Timeout,
    /// This machine has run out of something, or has no route to the server.
    Other,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        Error::plain(error.text)
    }
}

impl ClientError {
    /// No connection was made.
    pub(super) fn connecting(peer: SocketAddr, error: &io::Error, timeout: Option<Duration>) -> ClientError {
        let (kind, remedy) = match error.kind() {
            ErrorKind::ConnectionRefused => {
                (Kind::Refused, "nothing listens there: start a server, or give the address of one")
            }
            ErrorKind::TimedOut => (Kind::Timeout, "is its accept queue full, or the way there closed?"),
            ErrorKind::ConnectionReset => (Kind::Reset, "is the server about to end?"),
            ErrorKind::AddrNotAvailable => {
                (Kind::Other, "all ports are in use or in TIME_WAIT: open fewer, or wait a minute")
            }
            _ => (Kind::Other, shortage(error).unwrap_or("is the address right?")),
        };
        let reason = match timeout {
            // The kernel's own time-out has an errno.
            Some(timeout) if kind == Kind::Timeout && error.raw_os_error().is_none() => no_answer(timeout),
            _ => strerror(error),
        };
        ClientError { kind, text: format!("cannot connect to {peer}: {reason}; {remedy}") }
    }
}

/// How far the bytes of a stream have come.
#[derive(Debug, Default)]
pub(super) struct Transfer {
    /// How many bytes the kernel has taken.
    pub(super) sent: u64,
    /// How many bytes have come back, and were right.
    pub(super) returned: u64,
    /// Whether a PROXY header was sent before them.
    pub(super) has_header: bool,
}

impl Transfer {
    /// The connection has ended by an error.
    pub(super) fn broken(&self, error: &io::Error) -> ClientError {
        let kind = match error.kind() {
            _ if is_reset(error) => return self.missing(Kind::Reset, "the connection was reset"),
            ErrorKind::TimedOut => Kind::Timeout,
            _ => Kind::Other,
        };
        self.missing(kind, format_args!("the connection broke ({})", strerror(error)))
    }

    /// The next byte isn't the one that was sent.
    pub(super) fn wrong(&self, expected: u8, got: u8) -> ClientError {
        let (at, expected, got) = (self.returned + 1, name(expected), name(got));
        self.not_echoed(format!("the answer is wrong at byte {at}: {expected} was sent, and {got} came back"))
    }

    /// More came back than was sent.
    pub(super) fn too_much(&self) -> ClientError {
        self.not_echoed(format!("more came back than the {} sent", count(self.sent, "byte")))
    }

    /// What came back is not what was sent. A server that echoes the header begins with that.
    fn not_echoed(&self, mut text: String) -> ClientError {
        if self.has_header {
            text += "; was the server started with --proxy-protocol?";
        }
        ClientError { kind: Kind::Wrong, text }
    }

    /// The end of file has come too early.
    pub(super) fn lost(&self) -> ClientError {
        self.missing(Kind::Lost, "the server closed the connection")
    }

    /// What is due has not come for too long, as `event` says.
    pub(super) fn overdue(&self, event: String) -> ClientError {
        let mut error = self.missing(Kind::Timeout, event);
        if self.returned == 0 && self.sent > 0 {
            error.text += "; are all workers busy? the kernel connects, but one of them has to accept";
        }
        error
    }

    /// The kernel has not taken the whole PROXY header.
    pub(super) fn header_cut(&self, taken: usize, length: usize) -> ClientError {
        let text =
            format!("the kernel took {taken} of the {} of the PROXY header", count(length as u64, "byte"));
        self.missing(Kind::Other, text)
    }

    /// Says which byte the stream still waited for at the `event`.
    fn missing(&self, kind: Kind, event: impl fmt::Display) -> ClientError {
        let missing = match (self.returned, self.sent) {
            (_, 0) => "nothing had been sent".into(),
            (returned, sent) if returned == sent => format!("all {} had come back", count(sent, "byte")),
            (returned, sent) => format!("byte {} of {sent} sent has not come back", returned + 1),
        };
        ClientError { kind, text: format!("{event}, and {missing}") }
    }
}

/// True for each error that a reset causes. Which of the three it is depends on the
/// call, on the calls before it, and on the system.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected)
}

pub(super) fn no_answer(timeout: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(timeout))
}

/// A byte for a message: `'a' (0x61)`.
fn name(byte: u8) -> String {
    match byte.is_ascii_graphic() {
        true => format!("'{}' (0x{byte:02x})", char::from(byte)),
        false => format!("0x{byte:02x}"),
    }
}
