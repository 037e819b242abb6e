//! What a worker narrates: fork, close_range, sigaction, accept, recv, send, poll, shutdown,
//! close. Each function stands for one call, in the order of a worker's life.

use std::fmt::Display;
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use socket2::Socket;

use super::{received_text, sent_text};
use crate::error::strerror;
use crate::sys::sandbox::Layer;
use crate::sys::socket::send_queue_len;
use crate::text::count;

steps! {
    fn forked() {
        "fork() = 0: this is the child, with memory of its own from now on and the same listening socket";
    }

    fn closed_inherited() {
        "close_range(): closes all descriptors that a worker does not need, such as files of the parent's";
    }

    fn handlers_installed() {
        "sigaction(SIGTERM): from now on it asks this worker to leave; so does the parent's death";
    }

    fn layer_entered(layer: Layer) { "{}: {}", layer.name(), layer.effect(); }

    fn threads_started(threads: usize) {
        "clone(), {}: they share this process's memory; each is to block in accept(), and this one waits \
         for signals", count(threads as u64, "thread");
    }

    fn woken(connections: usize, ready: usize) {
        "epoll_wait() = {ready}: of {}, so many descriptors are ready",
        count(connections as u64, "connection");
    }

    fn accept_blocks(fd: RawFd) {
        calls "accept({fd}): waits for a client";
        "accept({fd}): asleep until a client connects";
    }

    fn accepted(fd: RawFd, socket: &Socket, peer: impl Display, since: Instant) {
        calls "accept({fd}) = {0}: {peer} accepted; {0} is its new socket", socket.as_raw_fd();
        "accept({fd}) = {0}, after {1:.1?}: woken; {0} is a new socket on the same port, {2}, for the \
         client at {peer} alone; {fd} goes on listening",
        socket.as_raw_fd(), since.elapsed(), local_address(socket);
    }

    fn accept_failed(fd: RawFd, error: Errno) {
        calls "accept({fd}) = -1: {}; no client", strerror(&error.into());
        "accept({fd}) = -1, {error:?}: {}; no client this time", strerror(&error.into());
    }

    fn recv_watches(fd: RawFd) {
        "setsockopt({fd}, SO_RCVTIMEO) = 0: recv returns now and then, to check how long the client has been idle";
    }

    fn recv_blocks(fd: RawFd) { "recv({fd}): asleep until the client sends"; }

    fn received(fd: RawFd, length: usize) {
        both "recv({fd}) = {}", received_text(length, "the client sends no more");
    }

    fn header_taken(fd: RawFd, length: usize, peer: impl Display) {
        calls "recv({fd}): PROXY header: {peer}";
        "recv({fd}): the first {} are a PROXY header: {peer}", count(length as u64, "byte");
    }

    fn recv_interrupted(fd: RawFd) {
        both "recv({fd}) = -1: a signal asks this worker to leave";
    }

    fn sent(fd: RawFd, length: usize) { both "send({fd}) = {}", sent_text(length); }

    fn send_blocks(socket: &Socket, length: usize) {
        "send({}): {length} bytes find no room, and {} wait to be taken; asleep until the client reads",
        socket.as_raw_fd(), send_queue_len(socket).unwrap_or(0);
    }

    fn closed(fd: RawFd) { both "close({fd}): the connection is closed on this side"; }

    fn queue_is_empty(fd: RawFd) { "poll({fd}) = 0: no connection waits in the accept queue"; }

    fn finishes(connections: usize, quiet: Duration) {
        "poll(): {} to finish, each when it has been quiet for {quiet:.1?}",
        count(connections as u64, "connection");
    }

    fn half_closed(fd: RawFd) {
        "shutdown({fd}, SHUT_WR) = 0: the client is quiet, and reads an end of file now";
    }

    fn end_of_file_answered(fd: RawFd) {
        both "recv({fd}) = 0: end of file, the client has closed its side too";
    }

    fn closes_first(quiet: Duration) {
        "poll() = 0: the client hasn't closed within {quiet:.1?}, so this worker closes first";
    }
}

/// Empty of a connection that is gone already.
fn local_address(socket: &Socket) -> String {
    let local = socket.local_addr().ok().and_then(|local| local.as_socket());
    local.map_or(String::new(), |local| local.to_string())
}
