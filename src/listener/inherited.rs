//! The listening socket that this process was started with, instead of one of its own: by
//! systemd (socket activation), or by the server that it replaces (an upgrade). Both pass it as
//! sd_listen_fds(3) says: as descriptor 3, named by LISTEN_FDS and LISTEN_PID.

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use socket2::{Socket, Type};

use super::{Listener, set_options};
use crate::error::Error;
use crate::log::narrate::server as narrate;
use crate::sys::socket::{inherited_socket, is_listening, queue_overflows};

const REMEDY: &str = "give the .socket unit one ListenStream= with an address and a port, and Accept=no";

impl Listener {
    /// The socket that was passed. None: there is none. `backlog` is for a repair: the queue
    /// stays as long as it is. `stays_open`: another process holds the socket, and goes on
    /// doing so when this server has ended. `overflows_before`: how often accept queues had
    /// overflowed before there was this one, if the last server has said it.
    ///
    /// # Errors
    /// If anything else was passed than one TCP socket that listens.
    pub fn inherited(
        backlog: i32,
        idle_timeout: Option<Duration>,
        stays_open: bool,
        overflows_before: Option<u64>,
    ) -> Result<Option<Listener>, Error> {
        let failed = |error: io::Error| Error::new("use what LISTEN_FDS passes", &error, REMEDY);
        let mut passed = sd_notify::listen_fds().map_err(failed)?;
        let (Some(fd), number) = (passed.next(), 1 + passed.len()) else { return Ok(None) };
        if number > 1 {
            return Err(Error::plain(format!("LISTEN_FDS passes {number} sockets instead of one; {REMEDY}")));
        }
        let wrong = |what| Error::plain(format!("LISTEN_FDS passes descriptor {fd}, which {what}; {REMEDY}"));
        let socket = checked(fd).map_err(wrong)?;
        set_options(&socket, idle_timeout).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?.as_socket();
        let address = address.ok_or_else(|| wrong("has no address of the Internet"))?;
        narrate::inherited(&socket, address);
        let mut listener = Listener::new(socket, address, backlog, idle_timeout);
        listener.stays_open = stays_open;
        // If it has dropped something, its own queue may have overflowed already.
        let until_now = || queue_overflows().filter(|_| !listener.has_dropped());
        listener.overflows_before = overflows_before.or_else(until_now);
        Ok(Some(listener))
    }
}

/// The socket, or what it is instead.
fn checked(fd: RawFd) -> Result<Socket, &'static str> {
    let socket = inherited_socket(fd).map_err(|_| "is not open")?;
    let is_internet = socket.local_addr().map_err(|_| "is no socket")?.as_socket().is_some();
    if !is_internet || !socket.r#type().is_ok_and(|kind| kind == Type::STREAM) {
        return Err("is no TCP socket");
    }
    match is_listening(&socket) {
        Ok(true) => Ok(socket),
        _ => Err("does not listen"),
    }
}
