//! What a worker narrates: fork, close_range, sigaction, accept, recv, send, poll, shutdown,
//! close. Each function stands for one call, in the order of a worker's life.

use std::fmt::Display;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::Socket;

use crate::error::strerror;
use crate::explain;
use crate::sys::sandbox::Layer;
use crate::sys::socket::send_queue_len;
use crate::text::count;

pub(crate) fn forked() {
    explain!(
        "fork() = 0: this is the child, with memory of its own from now on and the same listening socket"
    );
}

pub(crate) fn closed_inherited() {
    explain!("close_range(): all is closed that a worker does not need, such as files of the parent's");
}

pub(crate) fn handlers_installed() {
    explain!("sigaction(SIGTERM): from now on it asks this worker to leave; so does the parent's death");
}

pub(crate) fn layer_entered(layer: Layer) {
    explain!("{}: {}", layer.name(), layer.effect());
}

pub(crate) fn accept_blocks(fd: RawFd) {
    explain!("accept({fd}): asleep until a client connects");
}

pub(crate) fn accepted(fd: RawFd, socket: &Socket, peer: impl Display, since: Instant) {
    explain!(
        "accept({fd}) = {new}, after {:.1?}: woken; {new} is a new socket on the same port, {}, for the \
         client at {peer} alone; {fd} goes on listening",
        since.elapsed(),
        local_address(socket),
        new = socket.as_raw_fd()
    );
}

/// Empty of a connection that is gone already.
fn local_address(socket: &Socket) -> String {
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    local.map_or(String::new(), |local| local.to_string())
}

pub(crate) fn accept_failed(fd: RawFd, error: Errno) {
    explain!("accept({fd}) = {error:?}: {}; no client this time", strerror(&error.into()));
}

pub(crate) fn recv_watches(fd: RawFd) {
    explain!("setsockopt({fd}, SO_RCVTIMEO) = 0: recv is to look now and then whether the client reads");
}

pub(crate) fn recv_blocks(fd: RawFd) {
    explain!("recv({fd}): asleep until the client sends");
}

pub(crate) fn received(fd: RawFd, length: usize) {
    match length {
        0 => explain!("recv({fd}) = 0: end of file, the client sends no more"),
        _ => explain!("recv({fd}) = {length}: so many bytes have come"),
    }
}

pub(crate) fn recv_interrupted(fd: RawFd) {
    explain!("recv({fd}) = EINTR: a signal says that we must leave");
}

pub(crate) fn sent(fd: RawFd, length: usize) {
    explain!("send({fd}) = {length}: so many bytes are on their way back");
}

pub(crate) fn send_blocks(socket: &Socket, length: usize) {
    explain!(
        "send({}): {length} bytes find no room, and {} wait to be taken; asleep until the client reads",
        socket.as_raw_fd(),
        send_queue_len(socket).unwrap_or(0)
    );
}

pub(crate) fn closed(fd: RawFd) {
    explain!("close({fd}): the connection is closed on our side, too");
}

pub(crate) fn queue_is_empty(fd: RawFd) {
    explain!("poll({fd}) = 0: no connection waits in the accept queue");
}

pub(crate) fn finishes(connections: usize, quiet: Duration) {
    explain!(
        "poll(): {} to finish, each when it has been quiet for {quiet:.1?}",
        count(connections as u64, "connection")
    );
}

pub(crate) fn half_closed(fd: RawFd) {
    explain!("shutdown({fd}, SHUT_WR) = 0: the client is quiet, and reads an end of file now");
}

pub(crate) fn end_of_file_answered(fd: RawFd) {
    explain!("recv({fd}) = 0: end of file, the client has heard");
}

pub(crate) fn closes_first(quiet: Duration) {
    explain!("poll() = 0: the client hasn't closed within {quiet:.1?}, so we close first");
}
