//! What the client narrates: socket, connect, send, recv, select, shutdown, close.

use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{received_text, sent_text};
use crate::error::strerror;

calls! {
    fn created(fd) {
        calls "socket() = {fd}: a new TCP socket";
        "socket() = {fd}: a new TCP socket is descriptor {fd}";
    }

    fn timeouts_set(fd, timeout: Duration) {
        "setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: recv and send wait for {timeout:?} at most";
    }

    fn nodelay_set(fd) {
        "setsockopt({fd}, TCP_NODELAY) = 0: each send goes out at once";
    }

    fn connecting(fd, peer: SocketAddr) {
        "connect({fd}, {peer}): asleep until the kernel there answers";
    }

    fn connect_failed(fd, peer: SocketAddr, error: &io::Error) {
        calls "connect({fd}, {peer}) = -1: {}", strerror(error);
        "connect({fd}, {peer}) = -1: {}; the socket is closed", strerror(error);
    }

    fn connected(fd, peer: SocketAddr, since: Instant) {
        calls "connect({fd}, {peer}) = 0: connected, perhaps not yet accepted";
        "connect({fd}, {peer}) = 0, after {:.1?}: the kernel there has completed the connection; it may not \
         be accepted yet", since.elapsed();
    }

    fn local_address(fd, local: SocketAddr) {
        "getsockname({fd}) = {local}: the kernel has chosen the port of this end";
    }

    fn nonblocking(fd) {
        "fcntl({fd}, O_NONBLOCK) = 0: send and recv return at once";
    }

    fn sent(fd, length: usize) {
        calls "send({fd}) = {}", sent_text(length);
        "send({fd}) = {}: the kernel has taken them", sent_text(length);
    }

    fn proxy_header_sent(fd, length: usize, version: &str) {
        calls "send({fd}) = {}, the PROXY header", sent_text(length);
        "send({fd}) = {}, the PROXY header ({version}): it tells the server which client connects to which \
         address", sent_text(length);
    }

    fn send_failed(fd, error: &io::Error) {
        both "send({fd}) = -1: {}", strerror(error);
    }

    fn recv_blocks(fd, awaited_event: &str) {
        "recv({fd}): asleep until {awaited_event}";
    }

    fn received(fd, length: usize) {
        both "recv({fd}) = {}", received_text(length, "the server has closed its side");
    }

    fn half_closed(fd) {
        "shutdown({fd}, SHUT_WR) = 0: the client sends no more; what is on its way still comes back";
    }

    fn closing(fd) {
        both "close({fd}): the connection is closed on this side";
    }
}

steps! {
    fn reading() {
        "read(0): asleep until a line is typed";
    }

    fn selecting(awaited_event: &str) {
        "select(): asleep until {awaited_event}";
    }
}
