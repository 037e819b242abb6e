//! Waiting for a socket, and where Linux and macOS differ in what one does.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
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

/// The smallest accept queue that `listen` can be asked for. Linux takes 0
/// (room for one connection); macOS takes 0 for the largest it has.
pub const SMALLEST_BACKLOG: i32 = if cfg!(target_os = "macos") { 1 } else { 0 };

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
pub fn unsent(socket: impl AsFd) -> nix::Result<usize> {
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
/// See proc(5), /proc/net/tcp: of a listening socket, `rx_queue` is that number.
pub fn accept_queue(pid: libc::pid_t, inode: u64) -> Option<u64> {
    // Listening sockets come first: no need to read of thousands of connections.
    const LISTENING: &str = "0A";
    // That process's list: it may be in another network namespace than we are.
    ["tcp", "tcp6"].iter().find_map(|list| {
        let file = File::open(format!("/proc/{pid}/net/{list}")).ok()?;
        let lines = BufReader::new(file).lines().skip(1).map_while(Result::ok);
        lines
            .map_while(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words.get(3) == Some(&LISTENING)).then(|| {
                    let ours = words.get(9)?.parse() == Ok(inode);
                    let (_, queue) = words.get(4)?.split_once(':')?;
                    u64::from_str_radix(queue, 16).ok().filter(|_| ours)
                })
            })
            .find_map(|queue| queue)
    })
}

/// The length that the kernel gives an accept queue that was asked to hold
/// `backlog` connections: on Linux net.core.somaxconn is the most.
pub fn queue_limit(backlog: i32) -> u64 {
    let asked = u64::from(backlog.unsigned_abs());
    let most =
        fs::read_to_string("/proc/sys/net/core/somaxconn").ok().and_then(|text| text.trim().parse().ok());
    most.map_or(asked, |most: u64| asked.min(most))
}
