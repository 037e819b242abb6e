//! What the client narrates: socket, connect, send, recv, select, shutdown, close.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::received_text;
use crate::error::strerror;

calls! {
    fn created(fd) => "socket() = {fd}: a new TCP socket is descriptor {fd}";

    fn options_set(fd) =>
        "setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: no call is to wait for ever";
        "setsockopt({fd}, TCP_NODELAY) = 0: each send is to go out at once";

    fn connecting(fd, peer: SocketAddr) => "connect({fd}, {peer}): asleep until the kernel there answers";

    fn connect_failed(fd, peer: SocketAddr, error: &io::Error) =>
        "connect({fd}, {peer}): {}; so the socket is closed", strerror(error);

    fn connected(fd, peer: SocketAddr, since: Instant) =>
        "connect({fd}, {peer}) = 0, after {:.1?}: the kernel there has completed the connection; no process \
         need have accepted it yet", since.elapsed();

    fn local_address(fd, local: SocketAddr) =>
        "getsockname({fd}) = {local}: the kernel has chosen the port of this end";

    fn nonblocking(fd) => "fcntl({fd}, O_NONBLOCK) = 0: send and recv return at once";

    fn sent(fd, length: usize) => "send({fd}) = {length}: the kernel has taken so many bytes";

    fn send_failed(fd, error: &io::Error) => "send({fd}): {}", strerror(error);

    fn received(fd, length: usize) =>
        "recv({fd}) = {}", received_text(length, "the server has closed its side");

    fn half_closed(fd) =>
        "shutdown({fd}, SHUT_WR) = 0: the client sends no more; what is on its way still comes back";

    fn closing(fd) => "close({fd}): the connection is over";
}

steps! {
    fn selecting(awaited_event: &str) => "select(): asleep until {awaited_event}";
}
