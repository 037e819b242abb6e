//! Sockets: what Linux and macOS do differently, and what the kernel tells of them.
#![allow(unsafe_code)]

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::libc;
use socket2::{SockAddr, Socket};

pub use super::socket_list::{accept_queue, half_open, is_accepted, is_same, listening_at};

/// Does an accepted socket inherit the listening socket's time-outs
/// (`SO_RCVTIMEO`, `SO_SNDTIMEO`)? Linux copies them, which saves two system
/// calls a connection; macOS starts each connection without any.
pub const TIMEOUTS_ARE_INHERITED: bool = cfg!(target_os = "linux");

/// Does MSG_DONTWAIT keep send from blocking, as it does recv? On macOS it does not: there the
/// socket itself must be non-blocking.
pub const SEND_HEEDS_DONTWAIT: bool = cfg!(target_os = "linux");

/// Does the time-out for sending (`SO_SNDTIMEO`) end a connect, too? Linux: socket(7).
const CONNECTING_IS_SENDING: bool = cfg!(target_os = "linux");

/// An address as the kernel gets it: a `sockaddr_in` or `sockaddr_in6`. The family in
/// it is in this machine's order of bytes, the port and the address in the network's.
pub fn address_bytes(address: &SockAddr) -> &[u8] {
    // SAFETY: an address is as long as it says, and all of it was written: zeros
    // first, the fields after that. The borrow keeps it where it is.
    unsafe { std::slice::from_raw_parts(address.as_ptr().cast(), address.len() as usize) }
}

/// How many bytes were sent that the peer's TCP has not taken yet. See tcp(7),
/// SIOCOUTQ; on macOS SO_NWRITE.
///
/// # Errors
/// None for a socket that is connected, or was.
pub fn send_queue_len(socket: impl AsFd) -> nix::Result<usize> {
    #[cfg(not(target_os = "linux"))]
    return getsockopt(socket, libc::SOL_SOCKET, libc::SO_NWRITE).map(|[bytes]| bytes as usize);
    #[cfg(target_os = "linux")]
    {
        let mut bytes: libc::c_int = 0;
        // SAFETY: this request (SIOCOUTQ by its older name) writes one int.
        let result = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &mut bytes) };
        Errno::result(result).map(|_| bytes as usize)
    }
}

/// An option of the socket that is so many 32-bit numbers, or begins with them: for options that
/// neither nix nor socket2 knows. See getsockopt(2).
fn getsockopt<const N: usize>(
    socket: impl AsFd,
    level: libc::c_int,
    name: libc::c_int,
) -> nix::Result<[u32; N]> {
    let mut numbers = [0; N];
    let mut size = size_of_val(&numbers) as libc::socklen_t;
    let (fd, place) = (socket.as_fd().as_raw_fd(), numbers.as_mut_ptr().cast());
    // SAFETY: each value of the bytes is a number, and the size says how many have room.
    Errno::result(unsafe { libc::getsockopt(fd, level, name, place, &mut size) })?;
    if size as usize == size_of_val(&numbers) { Ok(numbers) } else { Err(Errno::EINVAL) }
}

/// Connects, and waits for that no longer than `timeout`, which the socket has as its
/// time-out for sending: where that means connecting, too, one call does it.
///
/// # Errors
/// `TimedOut`, and all that connect(2) lists.
pub fn connect(socket: &Socket, peer: SocketAddr, timeout: Option<Duration>) -> io::Result<()> {
    if !CONNECTING_IS_SENDING {
        return match socket.connect_timeout(&peer.into(), timeout.unwrap_or(Duration::MAX)) {
            // Connected, and the server has closed already: macOS reports that as it does a
            // failure, but without an error.
            Err(error) if error.kind() == io::ErrorKind::Other => Ok(()),
            result => result,
        };
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
    if listening.port() != wanted.port() || (here != there && !here.is_unspecified()) {
        return None;
    }
    match here.is_ipv4() == there.is_ipv4() {
        _ if here == there => Some(Match::Exact),
        true => Some(Match::Unspecified),
        false => (here.is_ipv6() && is_dual_stack).then_some(Match::DualStack),
    }
}

#[cfg(target_os = "linux")]
const SO_MEMINFO: libc::c_int = libc::SO_MEMINFO;
#[cfg(not(target_os = "linux"))]
const SO_MEMINFO: libc::c_int = -1; // No option has this number.

#[cfg(target_os = "linux")]
const TCP_INFO: libc::c_int = libc::TCP_INFO;
#[cfg(not(target_os = "linux"))]
const TCP_INFO: libc::c_int = -1; // No option has this number.

/// How many segments a socket has dropped. A listening socket does so when its accept queue is
/// full, and when a client resets a handshake that is not complete, as health checks and port
/// scanners do. None: the system can't tell. See SO_MEMINFO in the kernel's sock_diag.h.
pub fn drops(socket: impl AsFd) -> Option<u64> {
    const DROPS: usize = 8; // SK_MEMINFO_DROPS
    let numbers: [_; DROPS + 1] = getsockopt(socket, libc::SOL_SOCKET, SO_MEMINFO).ok()?;
    Some(numbers[DROPS].into())
}

/// How often an accept queue was full, of all sockets in this network namespace. None: the
/// system can't tell. See ListenOverflows in the kernel's snmp_counter.rst.
pub fn queue_overflows() -> Option<u64> {
    let counters = fs::read_to_string("/proc/self/net/netstat").ok()?;
    let mut lines = counters.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next()?.split(' '), lines.next()?.split(' '));
    names.zip(values).find(|(name, _)| *name == "ListenOverflows")?.1.parse().ok()
}

/// An accept queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queue {
    /// How many connections are in it.
    pub length: usize,
    /// How many it holds.
    pub limit: u64,
}

/// A listening socket's accept queue. None: the system can't tell. See TCP_INFO in tcp(7): of a
/// listening socket `tcpi_unacked` and `tcpi_sacked` say it.
pub fn queue(socket: impl AsFd) -> Option<Queue> {
    const UNACKED: usize = 6; // Eight numbers of one byte, and four of 32 bits, come before it.
    const SACKED: usize = UNACKED + 1;
    let numbers: [_; SACKED + 1] = getsockopt(socket, libc::IPPROTO_TCP, TCP_INFO).ok()?;
    Some(Queue { length: numbers[UNACKED] as usize, limit: numbers[SACKED].into() })
}

/// The socket that this process was started with, as descriptor `fd`.
///
/// # Errors
/// `EBADF` if it is not open.
pub fn inherited_socket(fd: RawFd) -> nix::Result<Socket> {
    // SAFETY: only a flag is changed, which fails for a number without a descriptor.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: it is open, and the process that started this one has left it to this caller alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
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
}
