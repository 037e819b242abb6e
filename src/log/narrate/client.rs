//! What the client narrates: socket, connect, send, recv, select, shutdown, close.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::time::Instant;

use crate::error::strerror;
use crate::explain;

pub(crate) fn created(socket: &impl AsRawFd) {
    let fd = socket.as_raw_fd();
    explain!("socket() = {fd}: a new TCP socket is descriptor {fd}");
}

pub(crate) fn options_set(socket: &impl AsRawFd) {
    let fd = socket.as_raw_fd();
    explain!("setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: no call is to wait for ever");
    explain!("setsockopt({fd}, TCP_NODELAY) = 0: each send is to go out at once");
}

pub(crate) fn connecting(socket: &impl AsRawFd, peer: SocketAddr) {
    explain!("connect({}, {peer}): asleep until the kernel there answers", socket.as_raw_fd());
}

pub(crate) fn connect_failed(socket: &impl AsRawFd, peer: SocketAddr, error: &io::Error) {
    let fd = socket.as_raw_fd();
    explain!("connect({fd}, {peer}): {}; so the socket is closed", strerror(error));
}

pub(crate) fn connected(socket: &impl AsRawFd, peer: SocketAddr, since: Instant) {
    explain!(
        "connect({}, {peer}) = 0, after {:.1?}: the kernel there has completed the connection; no process \
         need have accepted it yet",
        socket.as_raw_fd(),
        since.elapsed()
    );
}

pub(crate) fn local_address(socket: &impl AsRawFd, local: SocketAddr) {
    explain!("getsockname({}) = {local}: the kernel has chosen the port of this end", socket.as_raw_fd());
}

pub(crate) fn nonblocking(socket: &impl AsRawFd) {
    explain!("fcntl({}, O_NONBLOCK) = 0: send and recv return at once", socket.as_raw_fd());
}

pub(crate) fn sent(socket: &impl AsRawFd, length: usize) {
    explain!("send({}) = {length}: the kernel has taken so many bytes", socket.as_raw_fd());
}

pub(crate) fn send_failed(socket: &impl AsRawFd, error: &io::Error) {
    explain!("send({}): {}", socket.as_raw_fd(), strerror(error));
}

pub(crate) fn received(socket: &impl AsRawFd, length: usize) {
    let fd = socket.as_raw_fd();
    match length {
        0 => explain!("recv({fd}) = 0: end of file, the server has closed its side"),
        _ => explain!("recv({fd}) = {length}: so many bytes have come"),
    }
}

pub(crate) fn selecting(awaited_event: &str) {
    explain!("select(): asleep until {awaited_event}");
}

pub(crate) fn half_closed(socket: &impl AsRawFd) {
    let fd = socket.as_raw_fd();
    explain!("shutdown({fd}, SHUT_WR) = 0: the client sends no more; what is on its way still comes back");
}

pub(crate) fn closing(socket: &impl AsRawFd) {
    explain!("close({}): the connection is over", socket.as_raw_fd());
}
