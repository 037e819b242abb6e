//! The PROXY header: with `--proxy-protocol` each connection comes from a balancer, and begins
//! with the address of the client that it is for (HAProxy's proxy-protocol.txt, versions 1 and 2).
//!
//! The header comes by the same recv as the first bytes, or by one of its own; it may come in
//! pieces. It is taken off what recv has brought, so that the service sees the client's bytes
//! only. Both loops do that by [`take_header`]: the one here and that of many connections.
//! The crate ppp parses; this file finds where the header ends.
//!
//! Left out on purpose: what the header says besides (TLVs such as the name of TLS), and whom to
//! trust. Only the balancer may reach such a server.

use std::fmt;
use std::net::SocketAddr;

use ppp::{PartialResult, v1, v2};

use super::{CloseReason, Connection, WorkerHooks};
use crate::log::narrate::worker as narrate;

/// The longest header that is read, in bytes. Version 2 could have 65,551; nginx also stops here.
const LONGEST: usize = 4096;

/// The same for version 1, a line of text: as its specification says.
const LONGEST_LINE: usize = 107;

/// The length of the fixed part of version 2, in bytes, and the command in it by which a balancer
/// speaks for itself.
const FIXED_PART: usize = 16;
const LOCAL: u8 = 0x20;

/// The beginning of version 1, and its end. A newline alone does not end it.
const LINE_START: &[u8] = b"PROXY ";
const LINE_END: &[u8] = b"\r\n";

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHeader {
    /// The first bytes are something else.
    Missing,
    /// It begins as one, and goes on otherwise.
    Malformed,
    /// It does not end where it must.
    TooLong,
    /// The peer has closed its side before the first byte, as probes do.
    Closed,
    /// The connection has ended within the header.
    Cut,
    /// It was not complete within the idle time-out.
    Overdue,
}

impl fmt::Display for NoHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoHeader::Missing => {
                "the first bytes are no PROXY header; let the balancer send one (HAProxy: send-proxy-v2), or \
                 leave out --proxy-protocol"
            }
            NoHeader::Malformed => {
                "the PROXY header is malformed; the balancer must send what HAProxy's proxy-protocol.txt says"
            }
            NoHeader::TooLong => "the PROXY header is too long (version 1: 107 bytes, version 2: 4096)",
            NoHeader::Closed => "end of file before the PROXY header",
            NoHeader::Cut => "the connection ended within the PROXY header",
            NoHeader::Overdue => "no PROXY header within --idle-timeout",
        })
    }
}

/// A whole header.
#[derive(Debug, PartialEq)]
struct Header {
    /// In bytes.
    length: usize,
    /// The client's address. None: the balancer speaks for itself, as in a health check, or
    /// names no address of TCP.
    client: Option<SocketAddr>,
}

/// Takes the header off what the latest recv has brought, if the connection still awaits one.
/// Returns how many bytes of the client are there: the buffer begins with them. None: no byte
/// of the client has come yet. The end of file is 0, as recv says.
///
/// # Errors
/// There is no header, and the connection is to be closed.
pub(crate) fn take_header(
    connection: &mut Connection,
    buffer: &mut [u8],
    received: usize,
    hooks: &mut impl WorkerHooks,
) -> Result<Option<usize>, CloseReason> {
    let begun = match &mut connection.header_begun {
        Some(begun) if received > 0 => begun,
        _ => return Ok(Some(received)),
    };
    let before = begun.len();
    let whole = if before == 0 {
        parse(&buffer[..received])
    } else {
        begun.extend_from_slice(&buffer[..received]);
        parse(begun)
    };
    let Some(header) = whole.map_err(CloseReason::NoHeader)? else {
        if before == 0 {
            begun.extend_from_slice(&buffer[..received]);
        }
        return Ok(None);
    };
    connection.header_begun = None;
    connection.peer.speaks_for(header.client);
    narrate::header_taken(connection.fd(), header.length, connection.peer);
    hooks.after_header(connection);
    let end = header.length - before;
    buffer.copy_within(end..received, 0);
    Ok(Some(received - end).filter(|left| *left > 0))
}

/// Reads the header with which `bytes` begin. None: its end has not come yet.
fn parse(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    match begins_alike(bytes, v2::PROTOCOL_PREFIX) {
        true => parse_version_2(bytes),
        false => parse_line(bytes),
    }
}

/// Is the one the beginning of the other?
fn begins_alike(bytes: &[u8], start: &[u8]) -> bool {
    bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted)
}

/// Reads a header of version 2: a fixed part, which ends with the length of the rest.
fn parse_version_2(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    let Some([.., command, _family, high, low]) = bytes.first_chunk::<FIXED_PART>() else { return Ok(None) };
    let length = FIXED_PART + usize::from(u16::from_be_bytes([*high, *low]));
    let is_whole = bytes.len() >= length;
    if length > LONGEST {
        return Err(NoHeader::TooLong);
    }
    // What follows has a length, and no meaning, whatever it is.
    if *command == LOCAL {
        return Ok(is_whole.then_some(Header { length, client: None }));
    }
    match v2::Header::try_from(bytes) {
        Ok(header) => Ok(Some(Header { length, client: client(&header) })),
        Err(error) if !is_whole && error.is_incomplete() => Ok(None),
        Err(_) => Err(NoHeader::Malformed),
    }
}

/// The client that a header of version 2 names, if it comes by TCP.
fn client(header: &v2::Header) -> Option<SocketAddr> {
    match header.addresses {
        _ if header.protocol != v2::Protocol::Stream => None,
        v2::Addresses::IPv4(four) => Some((four.source_address, four.source_port).into()),
        v2::Addresses::IPv6(six) => Some((six.source_address, six.source_port).into()),
        v2::Addresses::Unix(_) | v2::Addresses::Unspecified => None,
    }
}

/// Reads a header of version 1. The parser gets a whole line: a part of one it may refuse.
fn parse_line(bytes: &[u8]) -> Result<Option<Header>, NoHeader> {
    if !begins_alike(bytes, LINE_START) {
        return Err(NoHeader::Missing);
    }
    let within = &bytes[..bytes.len().min(LONGEST_LINE)];
    let Some(end) = within.windows(LINE_END.len()).position(|pair| pair == LINE_END) else {
        return if bytes.len() < LONGEST_LINE { Ok(None) } else { Err(NoHeader::TooLong) };
    };
    let length = end + LINE_END.len();
    let line = &bytes[..length];
    let client = if is_unknown(line) { None } else { Some(client_of_line(line).ok_or(NoHeader::Malformed)?) };
    Ok(Some(Header { length, client }))
}

/// Does the line say that the balancer knows no addresses? What else is in it has no meaning.
fn is_unknown(line: &[u8]) -> bool {
    let rest = line.strip_prefix(LINE_START).and_then(|line| line.strip_prefix(b"UNKNOWN"));
    rest.is_some_and(|rest| rest.starts_with(b" ") || rest == LINE_END)
}

/// The client that a line names. None: the line is malformed, also where it has a plus sign, which
/// the parser takes for a part of a port.
fn client_of_line(line: &[u8]) -> Option<SocketAddr> {
    match v1::Header::try_from(line).ok()?.addresses {
        _ if line.contains(&b'+') => None,
        v1::Addresses::Tcp4(four) => Some((four.source_address, four.source_port).into()),
        v1::Addresses::Tcp6(six) => Some((six.source_address, six.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As HAProxy sends it, with the client 192.0.2.7:40312.
    fn version_2(command: u8, family: u8, tlvs: usize) -> Vec<u8> {
        let rest = [&[192, 0, 2, 7, 127, 0, 0, 1, 157, 120, 30, 97][..], &vec![0; tlvs]].concat();
        [v2::PROTOCOL_PREFIX, &[command, family], &(rest.len() as u16).to_be_bytes(), &rest].concat()
    }

    #[test]
    fn a_header_ends_where_it_ends_and_no_part_of_one_is_refused() {
        let client = Some("192.0.2.7:40312".parse().unwrap());
        let lines = ["TCP4 192.0.2.7 127.0.0.1 40312 7777", "TCP4 192.0.2.7 127.0.0.1 40312 0"];
        let line = |line: &str| (format!("PROXY {line}\r\n").into_bytes(), client);
        let unknown = (b"PROXY UNKNOWN a\xff \r \n c d e f g +h\r\n".to_vec(), None);
        let longest = LONGEST - (FIXED_PART + 12);
        let others = [
            unknown,
            (version_2(0x21, 0x11, 0), client),
            (version_2(0x21, 0x11, longest), client),
            (version_2(0x20, 0x11, 7), None),
            (version_2(0x20, 0x99, 0), None),
            (version_2(0x21, 0x12, 0), None),
        ];
        for (bytes, client) in lines.map(line).into_iter().chain(others) {
            for length in 0..bytes.len() {
                assert_eq!(parse(&bytes[..length]), Ok(None), "{length} of {bytes:?}");
            }
            let whole = Ok(Some(Header { length: bytes.len(), client }));
            assert_eq!(parse(&bytes), whole);
            assert_eq!(parse(&[&bytes[..], b"\r\nPROXY "].concat()), whole);
        }
    }

    #[test]
    fn what_cannot_become_a_header_is_refused_at_once() {
        let malformed = [version_2(0x31, 0x11, 9), version_2(0x22, 0x11, 9), version_2(0x21, 0x41, 9)];
        for header in malformed {
            assert_eq!(parse(&header[..FIXED_PART]), Err(NoHeader::Malformed), "{header:?}");
        }
        for line in ["TCP4 192.0.2.7 127.0.0.1 +80 81", "TCP4 192.0.2.7 127.0.0.1 80 081", "UNKNOWNS", "TCP5"]
        {
            assert_eq!(parse(format!("PROXY {line}\r\n").as_bytes()), Err(NoHeader::Malformed), "{line}");
        }
        assert_eq!(parse(b"PROXX"), Err(NoHeader::Missing));
        assert_eq!(parse(b"\r\n\r\n\0\r\nQUIX"), Err(NoHeader::Missing));
    }

    #[test]
    fn a_header_that_is_too_long_is_refused_as_soon_as_that_is_known() {
        let long = version_2(0x21, 0x11, LONGEST - (FIXED_PART + 12) + 1);
        assert_eq!(parse(&long[..FIXED_PART - 1]), Ok(None));
        assert_eq!(parse(&long[..FIXED_PART]), Err(NoHeader::TooLong));
        assert_eq!(parse(&long), Err(NoHeader::TooLong));
        let line = [b"PROXY UNKNOWN ", &[b'x'; 92][..]].concat();
        assert_eq!(parse(&line), Ok(None));
        assert_eq!(parse(&[&line[..], b"\r\n"].concat()), Err(NoHeader::TooLong));
        assert_eq!(parse(&[&line[..], b"x"].concat()), Err(NoHeader::TooLong));
        let most = [&line[..105], b"\r\n"].concat();
        assert_eq!(parse(&most), Ok(Some(Header { length: LONGEST_LINE, client: None })));
    }
}
