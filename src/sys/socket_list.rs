//! The kernel's list of TCP sockets, as each process may read it: listening sockets with the
//! length of their accept queues, and handshakes that are not complete.
//!
//! Only Linux has it as a file; elsewhere it is empty. See proc(5), /proc/net/tcp.

use std::collections::HashSet;
use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use nix::libc;

use super::socket::{Match, address_match};

/// How many connections wait to be accepted on the listening socket `inode` of
/// process `pid`, which Linux tells any process. None: the system can't tell.
pub fn accept_queue(pid: libc::pid_t, inode: u64) -> Option<u64> {
    // That process's list: it may be in another network namespace than this one.
    tcp_sockets(pid, LISTEN, None).flatten().find(|socket| socket.inode == inode).map(|socket| socket.queue)
}

/// The inode of the listening socket to which the kernel connects a client of
/// `address` on this machine; several, where they share the address (SO_REUSEPORT).
/// Empty: no socket listens there in this network namespace, or the system can't tell.
pub fn listening_at(address: SocketAddr) -> Vec<u64> {
    let mut matching: Vec<(Match, u64)> = Vec::new();
    for list in tcp_sockets("self", LISTEN, None) {
        // Whether an IPv6 socket takes IPv4 is not in the list; by default it does.
        let quality = |socket: &TcpSocket| address_match(socket.local, true, address);
        matching.extend(list.filter_map(|socket| Some((quality(&socket)?, socket.inode))));
        // The next list holds nothing better, and to make it the kernel looks at every connection.
        if matching.iter().any(|(quality, _)| *quality == Match::Exact) {
            break;
        }
    }
    let best = matching.iter().map(|(quality, _)| *quality).min();
    matching.iter().filter(|(quality, _)| Some(*quality) == best).map(|(_, inode)| *inode).collect()
}

/// The handshakes with the port of `address` that have begun and are not complete, each
/// as a text: the remote address, and how often the kernel has repeated its half. Of a
/// client that answered when the accept queue was full, the handshake stays here, and
/// is complete when either side repeats its half and there is room. Empty where the
/// system can't tell. None: the kernel takes too long to make the list. With 60,000 connections
/// in TIME_WAIT that was 0.1 to 12 s, and a parent that waits misses its deadlines.
pub fn half_open(address: SocketAddr) -> Option<HashSet<String>> {
    half_open_by(address, Instant::now() + Duration::from_millis(250))
}

fn half_open_by(address: SocketAddr, until: Instant) -> Option<HashSet<String>> {
    let is_own = |local: SocketAddr| {
        local.port() == address.port() && (address.ip().is_unspecified() || local.ip() == address.ip())
    };
    let own = tcp_sockets("self", SYN_RECV, Some(until)).flatten().filter(|socket| is_own(socket.local));
    let handshakes = own.map(|socket| socket.handshake).collect();
    (Instant::now() < until).then_some(handshakes)
}

/// Has a process accepted the connection of `client` with `server`, a listening socket on this
/// machine? In the accept queue it has no inode yet. None: it is not in this network
/// namespace, or the system can't tell.
pub fn is_accepted(server: SocketAddr, client: SocketAddr) -> Option<bool> {
    tcp_sockets("self", ESTABLISHED, None)
        .flatten()
        .find(|socket| socket.local.port() == server.port() && is_same(socket.remote, client))
        .map(|socket| socket.inode != 0)
}

/// Are they one address? ::ffff:127.0.0.1 is 127.0.0.1, on an IPv6 socket.
pub fn is_same(one: SocketAddr, other: SocketAddr) -> bool {
    (one.ip().to_canonical(), one.port()) == (other.ip().to_canonical(), other.port())
}

/// The column of a socket's state, as Linux lists it.
const ESTABLISHED: &str = " 01 ";
const SYN_RECV: &str = " 03 ";
const LISTEN: &str = " 0A ";

/// A line of Linux's list of TCP sockets.
struct TcpSocket {
    local: SocketAddr,
    remote: SocketAddr,
    /// Of a listening socket, the length of its accept queue.
    queue: u64,
    /// The remote address, and how often a segment was repeated.
    handshake: String,
    inode: u64,
}

impl TcpSocket {
    /// None: it is in another state.
    fn parse(line: &str, wanted_state: &str) -> Option<TcpSocket> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, local, remote, state, queues, _, repeated, _, _, inode, ..] = words[..] else { return None };
        let (_, queue) = queues.split_once(':')?;
        (state == wanted_state.trim()).then_some(TcpSocket {
            local: listed_address(local)?,
            remote: listed_address(remote)?,
            queue: u64::from_str_radix(queue, 16).ok()?,
            handshake: format!("{remote} {repeated}"),
            inode: inode.parse().ok()?,
        })
    }
}

/// The TCP sockets in this state, in the network namespace of process `pid`: first those of
/// IPv4, then those of IPv6; none elsewhere than on Linux. Reads no further after `until`.
fn tcp_sockets(
    pid: impl fmt::Display,
    state: &'static str,
    until: Option<Instant>,
) -> impl Iterator<Item = impl Iterator<Item = TcpSocket>> {
    let lists = ["tcp", "tcp6"].map(|list| File::open(format!("/proc/{pid}/net/{list}")));
    lists.into_iter().flatten().map(move |list| {
        let lines = BufReader::new(list).lines().skip(1).map_while(Result::ok);
        // Listening ones come first: no need to read on through thousands of connections. Of
        // those, only lines that may be of the wanted state are taken apart.
        lines
            .take_while(move |line| state != LISTEN || line.contains(LISTEN))
            .take_while(move |_| until.is_none_or(|until| Instant::now() < until))
            .filter(move |line| line.contains(state))
            .filter_map(move |line| TcpSocket::parse(&line, state))
    })
}

/// An address as Linux lists it: `0100007F:1E61`. The port is a number; the address is
/// its bytes in memory, four at a time read as one.
fn listed_address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let part = |at: usize| Some(u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => IpAddr::from(part(0)?),
        _ => {
            let parts = [part(0)?, part(8)?, part(16)?, part(24)?];
            IpAddr::from(<[u8; 16]>::try_from(parts.as_flattened()).ok()?)
        }
    };
    Some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_socket_that_a_client_reaches_is_found_in_the_list_of_each_family() {
        use nix::sys::stat::fstat;
        use std::net::TcpListener;

        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        let v6 = TcpListener::bind(("::1", port)).unwrap();
        let both = TcpListener::bind("[::]:0").unwrap();
        for (ip, socket) in [("127.0.0.1", &v4), ("::1", &v6), ("127.0.0.1", &both), ("::1", &both)] {
            let address = SocketAddr::new(ip.parse().unwrap(), socket.local_addr().unwrap().port());
            assert_eq!(listening_at(address), [fstat(socket).unwrap().st_ino], "{address}");
        }
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_list_that_takes_too_long_is_not_read_to_its_end() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        assert_eq!(half_open_by(address, Instant::now()), None);
        let start = Instant::now();
        assert_eq!(tcp_sockets("self", LISTEN, Some(start)).flatten().count(), 0);
        let later = start + Duration::from_secs(60);
        assert_eq!(half_open_by(address, later), Some(HashSet::new()));
        assert!(tcp_sockets("self", LISTEN, Some(later)).flatten().any(|socket| socket.local == address));
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn an_address_is_read_as_linux_lists_it() {
        for (listed, address) in [
            ("0100007F:1E61", "127.0.0.1:7777"),
            ("00000000:0007", "0.0.0.0:7"),
            ("00000000000000000000000001000000:1E61", "[::1]:7777"),
            ("B80D0120000000000000000078563412:FFFF", "[2001:db8::1234:5678]:65535"),
        ] {
            assert_eq!(listed_address(listed), Some(address.parse().unwrap()), "{listed}");
        }
        for wrong in ["", ":", "0100007F", "0100007F:", "01:1", "0100007F00:1", "local_address"] {
            assert_eq!(listed_address(wrong), None, "{wrong}");
        }
    }
}
