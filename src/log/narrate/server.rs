//! What the parent narrates: socket, bind, listen, fork, poll, kill, waitpid.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use socket2::{SockAddr, Socket};

use super::outcome;
use crate::sys::credentials::Credentials;
use crate::sys::socket::{TIMEOUTS_ARE_INHERITED, address_bytes};

calls! {
    fn socket(fd) {
        calls "socket() = {fd}: a new TCP socket";
        "socket() = {fd}: a new TCP socket is descriptor {fd}; it has no address yet";
    }

    fn bind(fd, address: SocketAddr, result: &io::Result<()>) {
        "bind({fd}, {address}): the kernel gets the address as the bytes {}; the port in it is {}, its high \
         byte first, as on the wire",
        hex(address_bytes(&SockAddr::from(address))), hex(&address.port().to_be_bytes());
        calls "bind({fd}, {address}) = {}", outcome(result, ": the socket has its address");
        "bind({fd}, {address}) = {}",
        outcome(result, ": the socket has its address; no client can connect yet");
    }

    /// It is closed because it was opened only to learn that.
    fn address_is_free(fd, address: SocketAddr) {
        calls "close({fd}): one socket is enough";
        "close({fd}): {address} is free as well; one socket is enough, on the first address";
    }

    fn inherited(fd, address: SocketAddr) {
        calls "{fd} listens at {address} already: it was passed by the process that started this one";
        "descriptor {fd} listens at {address} already: it was passed by the process that started this one \
         (LISTEN_FDS), which has called socket(), bind() and listen()";
    }

    fn getsockname(fd, address: SocketAddr) {
        "getsockname({fd}) = {address}: the address of the socket; for port 0 the kernel has chosen a port";
    }

    fn listen(fd, backlog: i32, called: Instant, result: &io::Result<()>) {
        calls "listen({fd}, {backlog}) = {}", outcome(result, ": clients can connect from now on");
        "listen({fd}, {backlog}) = {}",
        outcome(result, format_args!(
            ", after {:.1?}: it doesn't wait for a client; from now on the kernel completes handshakes by \
             itself, and up to {backlog} connections wait to be accepted, or fewer, if its own limit is lower",
            called.elapsed()
        ));
    }

    fn resize(fd, backlog: i32, result: &io::Result<()>) {
        both "listen({fd}, {backlog}) = {}", outcome(result, ": only changes the length of the accept queue");
    }

    fn close_listener(fd) {
        calls "close({fd}): this process does not listen any more";
        "close({fd}): this process does not listen any more; the port is free when no process has the \
         socket open";
    }
}

/// The options that are set before bind.
pub(crate) fn never_blocks(socket: &Socket) {
    explain!(
        "fcntl({}, O_NONBLOCK) = 0: accept() does not block; workers wait in epoll_wait() for all sockets at \
         once",
        socket.as_raw_fd()
    );
}

pub(crate) fn setsockopt(socket: &Socket) {
    let fd = socket.as_raw_fd();
    explain!(
        "setsockopt({fd}, SO_REUSEADDR) = 0: bind() ignores connections of the last server in TIME_WAIT"
    );
    explain!("setsockopt({fd}, TCP_NODELAY) = 0: each send goes out at once, also a short one");
    explain!("setsockopt({fd}, SO_OOBINLINE) = 0: bytes sent as urgent come in their order, as all others");
    if TIMEOUTS_ARE_INHERITED {
        explain!("setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: recv and send do not wait for ever");
    }
}

steps! {
    fn sigaction(signals: &[Signal]) {
        "sigaction({}): from now on these signals only write a byte into a pipe, and the parent waits at \
         the other end", names(signals);
    }

    fn scoreboard_mapped(path: &Path) {
        "mmap({}, MAP_SHARED): memory that this process and all its children share",
        path.display();
    }

    fn fork(pid: Pid, slot: usize) {
        both "fork() = {pid}: worker {slot}, a copy with the same listening socket";
    }

    fn exit(code: u8) {
        "_exit({code}): the kernel closes what is still open, and sends SIGCHLD to the parent";
    }

    fn waitpid(pid: Pid) {
        "waitpid() = {pid}: this child has died; now it is gone from the list of processes";
    }

    fn kill(pid: Pid, signal: Signal) {
        "kill({pid}, {signal}): {}",
        match signal {
            Signal::SIGTERM => "asks the worker to finish its clients and leave",
            Signal::SIGCONT => "continues the worker if it is stopped, and interrupts its call",
            _ => "ends the worker at once",
        };
    }
}

pub(crate) fn poll(deadline: Option<Instant>, watches_queue: bool) {
    let connection = if watches_queue { ", a connection waits" } else { "" };
    match deadline.map(|due| due.saturating_duration_since(Instant::now())) {
        None => explain!("poll(): asleep until a signal comes{connection}, or a worker is ready"),
        Some(wait) => {
            explain!(
                "poll(): asleep until a signal comes{connection}, a worker is ready, or {wait:.1?} are over"
            );
        }
    }
}

pub(crate) fn woken(signals: &[Signal]) {
    if !signals.is_empty() {
        explain!("poll(): woken by {}", names(signals));
    }
}

pub(crate) fn worker_is_ready(pid: Pid) {
    explain!("poll(): woken by pid {pid}, which is ready to accept");
}

pub(crate) fn workers_are_full(pid: Pid) {
    explain!("poll(): woken by pid {pid}, which has taken the last place for a client");
}

/// In the worker that has taken them.
pub(crate) fn take_credentials(credentials: &Credentials) {
    let Credentials { user, group, .. } = credentials;
    explain!("setgroups(), setgid({group}) = 0: the worker has the rights of this group only");
    if let Some(user) = user {
        explain!("setuid({user}) = 0: the worker has the rights of this user only, and never root's again");
    }
}

/// "SIGTERM, SIGCHLD".
fn names(signals: &[Signal]) -> String {
    signals.iter().map(|signal| signal.as_str()).collect::<Vec<_>>().join(", ")
}

/// Bytes as od shows them: "1e 61".
fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
