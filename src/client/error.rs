//! What can go wrong with a connection, in words and by kind.

use std::fmt;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use super::Connection;
use crate::error::{Error, shortage, strerror};
use crate::text::count;

/// What has gone wrong, in a line; the connection is of no use any more.
#[derive(Debug)]
pub struct ClientError {
    /// ColumnKind which kind it is.
    pub kind: Kind,
    what: String,
}

/// The kinds of error that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A byte came back that isn't the one that was sent, or that nobody sent.
    Wrong,
    /// The server closed before all had come back.
    Lost,
    /// Nobody listens.
    Refused,
    /// The connection was reset: the server died, or wants no more of it.
    Reset,
    /// A byte, or the connection, was due for too long.
    Timeout,
    /// The system has no means, or no way there.
    Other,
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Error {
        Error::plain(error.what)
    }
}

impl ClientError {
    /// There is no connection.
    pub(super) fn connecting(peer: SocketAddr, error: &io::Error, timeout: Option<Duration>) -> ClientError {
        let (kind, remedy) = match error.kind() {
            ErrorKind::ConnectionRefused => {
                (Kind::Refused, "nobody listens there: start a server, or give the address of one")
            }
            ErrorKind::TimedOut => (Kind::Timeout, "is its accept queue full, or the way there closed?"),
            ErrorKind::ConnectionReset => (Kind::Reset, "is the server about to end?"),
            ErrorKind::AddrNotAvailable => {
                (Kind::Other, "all ports are in use or in TIME_WAIT: open fewer, or wait a minute")
            }
            _ => (Kind::Other, shortage(error).unwrap_or("is the address right?")),
        };
        let reason = match (kind, timeout) {
            (Kind::Refused, _) => "connection refused".into(),
            // The kernel's own time-out has a number.
            (Kind::Timeout, Some(timeout)) if error.raw_os_error().is_none() => in_vain(timeout),
            _ => strerror(error),
        };
        ClientError { kind, what: format!("cannot connect to {peer}: {reason}; {remedy}") }
    }

    /// The connection has ended by an error.
    pub(super) fn broken(connection: &Connection, error: &io::Error) -> ClientError {
        let missing = missing(connection);
        if is_reset(error) {
            return ClientError {
                kind: Kind::Reset,
                what: format!("the connection was reset, and {missing}"),
            };
        }
        let kind = if error.kind() == ErrorKind::TimedOut { Kind::Timeout } else { Kind::Other };
        ClientError { kind, what: format!("the connection broke ({}), and {missing}", strerror(error)) }
    }

    /// The next byte isn't the one that was sent.
    pub(super) fn wrong(connection: &Connection, expected: u8, got: u8) -> ClientError {
        let (at, expected, got) = (connection.returned + 1, name(expected), name(got));
        let what = format!("the answer is wrong at byte {at}: {expected} was sent, and {got} came back");
        ClientError { kind: Kind::Wrong, what }
    }

    /// More came than was sent.
    pub fn too_much(connection: &Connection) -> ClientError {
        let what = format!("more came back than the {} sent", count(connection.sent, "byte"));
        ClientError { kind: Kind::Wrong, what }
    }

    /// The end has come too early.
    pub fn lost(connection: &Connection) -> ClientError {
        if connection.is_reset {
            return ClientError::broken(connection, &ErrorKind::ConnectionReset.into());
        }
        let what = format!("the server closed the connection, and {}", missing(connection));
        ClientError { kind: Kind::Lost, what }
    }

    /// What is due has not come for too long.
    pub fn overdue(connection: &Connection) -> ClientError {
        let in_vain = match (connection.timeout, connection.limit) {
            (timeout, Some(limit)) if connection.is_over() => format!(
                "no whole answer within {}{} of the end (--duration)",
                humantime::format_duration(limit.grace),
                if timeout.is_some() { " (--timeout)" } else { "" }
            ),
            (timeout, _) => format!("{} (--timeout)", in_vain(timeout.unwrap_or_default())),
        };
        let hint = match (connection.returned, connection.sent) {
            (0, 1..) => "; are all workers busy? the kernel connects, but one of them has to accept",
            _ => "",
        };
        let what = format!("{in_vain}, and {}{hint}", missing(connection));
        ClientError { kind: Kind::Timeout, what }
    }
}

/// Does it say that the connection was reset? ServerSelector of the three depends on the call, on
/// what came before it, and on the system.
pub(super) fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::NotConnected)
}

fn missing(connection: &Connection) -> String {
    match (connection.returned, connection.sent) {
        (_, 0) => "nothing had been sent".into(),
        (returned, sent) if returned == sent => format!("all {} had come back", count(sent, "byte")),
        (returned, sent) => format!("byte {} of {sent} sent has not come back", returned + 1),
    }
}

fn in_vain(timeout: Duration) -> String {
    format!("no answer within {}", humantime::format_duration(timeout))
}

/// A byte for a message: `'a' (0x61)`.
fn name(byte: u8) -> String {
    match byte.is_ascii_graphic() {
        true => format!("'{}' (0x{byte:02x})", char::from(byte)),
        false => format!("0x{byte:02x}"),
    }
}
