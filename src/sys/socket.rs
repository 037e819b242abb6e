//! Waiting for a socket, and where Linux and macOS differ in what one does.
#![allow(unsafe_code)]

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockAddr, Socket};

/// Does an accepted socket inherit the listening socket's time-outs
/// (`SO_RCVTIMEO`, `SO_SNDTIMEO`)? Linux copies them, which saves two system
/// calls a connection; macOS starts each connection without any.
pub const TIMEOUTS_ARE_INHERITED: bool = cfg!(target_os = "linux");

/// Does the time-out for sending (`SO_SNDTIMEO`) end a connect, too? Linux: socket(7).
const CONNECTING_IS_SENDING: bool = cfg!(target_os = "linux");

/// An address as the kernel gets it: a `sockaddr_in` or `sockaddr_in6`. The family in
/// it is in this machine's order of bytes, the port and the address in the network's.
pub fn address_bytes(address: &SockAddr) -> &[u8] {
    // SAFETY: an address is as long as it says, and all of it was written: zeros
    // first, the fields after that. The borrow keeps it where it is.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.len() as usize) }
}

/// How many bytes we have sent that the peer's TCP has not taken yet. See tcp(7),
/// SIOCOUTQ; on macOS SO_NWRITE.
///
/// # Errors
/// None for a socket that is connected, or was.
pub fn send_queue_len(socket: impl AsFd) -> nix::Result<usize> {
    let (fd, mut bytes) = (socket.as_fd().as_raw_fd(), 0 as libc::c_int);
    #[cfg(target_os = "linux")]
    // SAFETY: this request (SIOCOUTQ by its older name) writes one int.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &mut bytes) };
    #[cfg(not(target_os = "linux"))]
    let result = {
        let mut size = size_of_val(&bytes) as libc::socklen_t;
        // SAFETY: the option is one int, and the size says that there is room.
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_NWRITE, (&raw mut bytes).cast(), &mut size) }
    };
    Errno::result(result).map(|_| bytes as usize)
}

/// Connects, and waits for that no longer than `timeout`, which the socket has as its
/// time-out for sending: where that means connecting, too, one call does it.
///
/// # Errors
/// `TimedOut`, and all that connect(2) lists.
pub fn connect(socket: &Socket, peer: SocketAddr, timeout: Option<Duration>) -> io::Result<()> {
    if !CONNECTING_IS_SENDING {
        return connect_by_poll(socket, peer, timeout);
    }
    loop {
        let Err(error) = socket.connect(&peer.into()) else { return Ok(()) };
        match Errno::from_raw(error.raw_os_error().unwrap_or(0)) {
            // Stopped and continued: the kernel has gone on meanwhile.
            Errno::EINTR => {}
            Errno::EINPROGRESS | Errno::EALREADY if timeout.is_some() => {
                return Err(io::ErrorKind::TimedOut.into());
            }
            _ => return Err(error),
        }
    }
}

/// The same with a socket that doesn't block meanwhile, as connect(2) advises. Only room
/// to send is waited for: on macOS poll reports a server that has closed already as it
/// does a failure.
fn connect_by_poll(socket: &Socket, peer: SocketAddr, timeout: Option<Duration>) -> io::Result<()> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    socket.set_nonblocking(true)?;
    match socket.connect(&peer.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let mut ready = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
            loop {
                match poll(&mut ready, timeout_until(deadline)) {
                    Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                    Ok(_) => break,
                    Err(Errno::EINTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            socket.take_error()?.map_or(Ok(()), Err)?;
        }
        result => result?,
    }
    socket.set_nonblocking(false)
}

/// poll's time-out for a wait until `deadline`, None being for ever. Rounded up: a
/// millisecond late instead of a busy millisecond.
pub fn timeout_until(deadline: Option<Instant>) -> PollTimeout {
    deadline.map_or(PollTimeout::NONE, |deadline| {
        let left = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
    })
}

/// Does it listen? On Linux each process that has the socket can end that for all, by
/// shutdown(2); macOS lets none (`ENOTCONN`).
///
/// # Errors
/// None that a correct call can cause.
pub fn is_listening(socket: &Socket) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    return socket.is_listener();
    #[cfg(not(target_os = "linux"))]
    Ok(socket.as_raw_fd() >= 0)
}

/// Waits until `socket` has bytes, an end of file, or a connection to give; at
/// the most for `limit`, in whole milliseconds.
///
/// # Errors
/// `EINTR` when a signal came first.
pub fn readable_within(socket: impl AsFd, limit: Duration) -> nix::Result<bool> {
    let mut socket = [PollFd::new(socket.as_fd(), PollFlags::POLLIN)];
    let ready = poll(&mut socket, PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX))?;
    Ok(ready > 0)
}

/// How many connections wait to be accepted on the listening socket `inode` of
/// process `pid`, as Linux tells anybody who asks. None: the system can't tell.
pub fn accept_queue(pid: libc::pid_t, inode: u64) -> Option<u64> {
    // That process's list: it may be in another network namespace than we are.
    let mut sockets = listening_sockets(pid);
    sockets.find(|socket| socket.inode == inode).map(|socket| socket.queue)
}

/// The inode of the listening socket to which the kernel connects a client of
/// `address` on this machine; several, where they share the address (SO_REUSEPORT).
/// None: nothing listens there in our network namespace, or the system can't tell.
pub fn listening_at(address: SocketAddr) -> Vec<u64> {
    // Whether an IPv6 socket takes IPv4 is not in the list; by default it does.
    let sockets = listening_sockets("self");
    let matching: Vec<(Match, u64)> = sockets
        .filter_map(|socket| Some((address_match(socket.address, true, address)?, socket.inode)))
        .collect();
    let best = matching.iter().map(|(quality, _)| *quality).min();
    matching.iter().filter(|(quality, _)| Some(*quality) == best).map(|(_, inode)| *inode).collect()
}

/// How well a listening socket's address matches a client's: the kernel takes the
/// best one, which is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Match {
    /// It is the same.
    Exact,
    /// It is the unspecified one of the same family.
    Unspecified,
    /// It is that of IPv6, and the socket takes IPv4 as well (ipv6(7), IPV6_V6ONLY).
    DualStack,
}

/// Does a socket that listens at `listening` take a client of `wanted`, and how well do
/// they match?
pub fn address_match(listening: SocketAddr, is_dual_stack: bool, wanted: SocketAddr) -> Option<Match> {
    // ::ffff:127.0.0.1 is 127.0.0.1, on an IPv6 socket.
    let (here, there) = (listening.ip().to_canonical(), wanted.ip().to_canonical());
    if listening.port() != wanted.port() {
        None
    } else if here == there {
        Some(Match::Exact)
    } else if !here.is_unspecified() {
        None
    } else if here.is_ipv4() == there.is_ipv4() {
        Some(Match::Unspecified)
    } else {
        (here.is_ipv6() && is_dual_stack).then_some(Match::DualStack)
    }
}

/// A line of Linux's list of sockets.
struct ListeningSocket {
    address: SocketAddr,
    queue: u64,
    inode: u64,
}

/// The listening sockets in the network namespace of process `pid`; none elsewhere than
/// on Linux. See proc(5), /proc/net/tcp: of a listening socket, `rx_queue` is the length of
/// its accept queue.
fn listening_sockets(pid: impl fmt::Display) -> impl Iterator<Item = ListeningSocket> {
    // They come first: no need to read of thousands of connections.
    const LISTENING: &str = "0A";
    let lists = ["tcp", "tcp6"].map(|list| File::open(format!("/proc/{pid}/net/{list}")));
    lists
        .into_iter()
        .flatten()
        .flat_map(|file| {
            BufReader::new(file).lines().skip(1).map_while(Result::ok).map_while(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words.get(3) == Some(&LISTENING)).then(|| {
                    let (_, queue) = words.get(4)?.split_once(':')?;
                    Some(ListeningSocket {
                        address: listed_address(words.get(1)?)?,
                        queue: u64::from_str_radix(queue, 16).ok()?,
                        inode: words.get(9)?.parse().ok()?,
                    })
                })
            })
        })
        .flatten()
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

/// How many segments a socket has dropped. A listening socket does so mostly when its
/// accept queue is full. None: the system can't tell. See SO_MEMINFO in the kernel's
/// sock_diag.h.
pub fn drops(socket: impl AsFd) -> Option<u64> {
    #[cfg(target_os = "linux")]
    {
        const DROPS: usize = 8; // SK_MEMINFO_DROPS
        let mut numbers = [0_u32; DROPS + 1];
        let mut size = size_of_val(&numbers) as libc::socklen_t;
        let (fd, place) = (socket.as_fd().as_raw_fd(), numbers.as_mut_ptr().cast());
        // SAFETY: the option is an array of u32, and the size says for how many there is room.
        let result = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_MEMINFO, place, &mut size) };
        (result == 0 && size as usize == size_of_val(&numbers)).then(|| numbers[DROPS].into())
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = socket;
        None
    }
}

/// The handshakes with the port of `address` that have begun and are not complete, each
/// as a text: the remote address, and how often the kernel has repeated its half. Of a
/// client that answered when the accept queue was full, the handshake stays here, and
/// is complete when either side repeats its half and there is room. Empty where the
/// system can't tell. See proc(5), /proc/net/tcp.
pub fn half_open(address: SocketAddr) -> HashSet<String> {
    const SYN_RECV: &str = "03";
    let is_own = |local: &str| {
        listed_address(local).is_some_and(|local| {
            local.port() == address.port() && (address.ip().is_unspecified() || local.ip() == address.ip())
        })
    };
    let lists = ["tcp", "tcp6"].map(|list| fs::read_to_string(format!("/proc/self/net/{list}")));
    let handshake = |line: &str| match line.split_whitespace().collect::<Vec<_>>().as_slice() {
        [_, local, remote, SYN_RECV, _, _, repeated, ..] if is_own(local) => {
            Some(format!("{remote} {repeated}"))
        }
        _ => None,
    };
    lists.iter().flatten().flat_map(|list| list.lines().filter_map(handshake)).collect()
}

/// The length that the kernel gives an accept queue that was asked to hold
/// `backlog` connections: on Linux net.core.somaxconn is the most.
pub fn queue_limit(backlog: i32) -> u64 {
    let asked = u64::from(backlog.unsigned_abs());
    let most =
        fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
    most.map_or(asked, |most: u64| asked.min(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_prefers_the_exact_address_then_the_family_then_dual_stack() {
        let quality = |listening: &str, wanted: &str| {
            let address = |ip: &str| SocketAddr::new(ip.parse().unwrap(), 7777);
            let of = |dual| address_match(address(listening), dual, address(wanted));
            (of(true), of(false))
        };
        let (exact, any, dual) = (Some(Match::Exact), Some(Match::Unspecified), Some(Match::DualStack));
        for (listening, wanted, expected) in [
            ("127.0.0.1", "127.0.0.1", (exact, exact)),
            ("127.0.0.1", "127.0.0.2", (None, None)),
            ("127.0.0.1", "::1", (None, None)),
            ("127.0.0.1", "0.0.0.0", (None, None)),
            ("0.0.0.0", "127.0.0.1", (any, any)),
            ("0.0.0.0", "0.0.0.0", (exact, exact)),
            ("0.0.0.0", "::1", (None, None)),
            ("0.0.0.0", "::", (None, None)),
            ("::", "::1", (any, any)),
            ("::", "127.0.0.1", (dual, None)),
            ("::", "0.0.0.0", (dual, None)),
            ("::", "::ffff:127.0.0.1", (dual, None)),
            ("::ffff:127.0.0.1", "127.0.0.1", (exact, exact)),
            ("::1", "127.0.0.1", (None, None)),
        ] {
            assert_eq!(quality(listening, wanted), expected, "{listening} {wanted}");
        }
        assert!(Match::Exact < Match::Unspecified && Match::Unspecified < Match::DualStack);
        let ports = ["127.0.0.1:1", "127.0.0.1:2"].map(|address| address.parse().unwrap());
        assert_eq!(address_match(ports[0], true, ports[1]), None);
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
