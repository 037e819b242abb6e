//! The listening socket: socket, bind, listen, once, in the parent.
//!
//! Every worker inherits it by fork and takes connections from its accept queue.
//! From `listen` on the kernel completes handshakes by itself, also while no process
//! is in `accept`. Every process that has the socket can spoil it for all others, so
//! the parent can repair it (`Listener::repair`).

mod inherited;
mod overflow;
mod repair;

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, Socket, Type};

use crate::echo;
use crate::error::{Error, strerror};
use crate::log::narrate::server as narrate;
use crate::sys::readiness::wait_for;
use crate::sys::socket::{TIMEOUTS_ARE_INHERITED, is_listening, queue, queue_limit, queue_overflows};

/// A socket in the listening state.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
    backlog: i32,
    idle_timeout: Option<Duration>,
    is_blocking: bool,
    /// Another process holds it as well, and goes on doing so when this server has ended.
    stays_open: bool,
    /// How often accept queues had overflowed before this one was there. None: unknown.
    overflows_before: Option<u64>,
}

impl Listener {
    /// Opens the socket on the first of `addresses` that can be bound. All others are bound as a
    /// test only: they are those of one name, and a client may connect to any of them. If one
    /// were another server's, that server would get connections that are meant for this one.
    ///
    /// `backlog` is the length of the accept queue; the kernel may shorten it (on Linux to
    /// net.core.somaxconn).
    ///
    /// # Errors
    /// If one of the addresses is taken, or none can be listened on. A port of 0 is never
    /// taken.
    pub fn open(
        addresses: &[SocketAddr],
        backlog: i32,
        idle_timeout: Option<Duration>,
    ) -> Result<Listener, Error> {
        let failed = |address: SocketAddr, error: io::Error| {
            Error::new(format_args!("bind {address}"), &error, remedy(&error, address))
        };
        let (mut first, mut failure) = (None, None);
        for (index, &address) in addresses.iter().enumerate() {
            // Some systems list an address twice.
            if addresses[..index].contains(&address) {
                continue;
            }
            match Self::bind(address, idle_timeout) {
                Ok(socket) if first.is_none() => first = Some((socket, address)),
                Ok(other) => narrate::address_is_free(&other, address),
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && address.port() != 0 => {
                    return Err(failed(address, error));
                }
                Err(error) => {
                    failure.get_or_insert_with(|| failed(address, error));
                }
            }
            if first.is_some() && address.port() == 0 {
                break;
            }
        }
        let Some((socket, address)) = first else {
            return Err(failure.expect("there is one address at least"));
        };
        Self::listen(socket, address, backlog, idle_timeout).map_err(|error| failed(address, error))
    }

    /// Creates a socket and gives it its address.
    fn bind(address: SocketAddr, idle_timeout: Option<Duration>) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        narrate::socket(&socket);

        // Otherwise connections of the last server in TIME_WAIT would keep the port taken for
        // a minute. It does not free a living server's port.
        socket.set_reuse_address(true)?;
        set_options(&socket, idle_timeout)?;
        narrate::setsockopt(&socket);

        let bound = socket.bind(&address.into());
        narrate::bind(&socket, address, &bound);
        bound.map(|()| socket)
    }

    /// Puts a bound socket into the listening state.
    fn listen(
        socket: Socket,
        address: SocketAddr,
        backlog: i32,
        idle_timeout: Option<Duration>,
    ) -> io::Result<Listener> {
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        narrate::getsockname(&socket, address);
        let overflows_before = queue_overflows();
        let called = Instant::now();
        let listening = socket.listen(backlog);
        narrate::listen(&socket, backlog, called, &listening);
        listening?;
        let mut listener = Listener::new(socket, address, backlog, idle_timeout);
        listener.overflows_before = overflows_before;
        Ok(listener)
    }

    /// Of a socket that blocks, and about which nothing else is known.
    fn new(socket: Socket, address: SocketAddr, backlog: i32, idle_timeout: Option<Duration>) -> Listener {
        let (is_blocking, stays_open, overflows_before) = (true, false, None);
        Listener { socket, address, backlog, idle_timeout, is_blocking, stays_open, overflows_before }
    }

    /// Whether accept is to block, in each process; if not, it fails with `EAGAIN` instead.
    ///
    /// # Errors
    /// None that exists.
    pub fn set_blocking(&mut self, is_blocking: bool) -> io::Result<()> {
        self.is_blocking = is_blocking;
        // Another server may use a socket that was inherited: it must not see another value even for
        // an instant.
        if self.socket.nonblocking()? == is_blocking {
            self.socket.set_nonblocking(!is_blocking)?;
        }
        if !is_blocking {
            narrate::never_blocks(&self.socket);
        }
        Ok(())
    }

    /// Does another process hold it as well, and go on doing so when this server has ended?
    /// Then the connections in its queue are the next server's.
    pub(crate) fn stays_open(&self) -> bool {
        self.stays_open
    }

    /// How many connections the accept queue holds.
    pub(crate) fn queue_limit(&self) -> u64 {
        queue(&self.socket).map_or_else(|| queue_limit(self.backlog), |queue| queue.limit)
    }

    /// Is accept to block?
    pub(crate) fn is_blocking(&self) -> bool {
        self.is_blocking
    }

    /// How long a client may neither send nor take bytes; None: for ever.
    pub(crate) fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// Where it listens, with the port that the kernel has chosen for 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Blocks until there is a connection, and takes it off the accept queue. The address is
    /// the peer's; None: the connection is gone already.
    ///
    /// # Errors
    /// All that accept(2) lists, and `EAGAIN` if no connection came within the idle time-out:
    /// on Linux that is the listening socket's time-out too.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        // "raw": only the one system call. Close-on-exec, which accept() sets, is for
        // processes that exec.
        let (client, peer) = self.socket.accept_raw()?;
        if !TIMEOUTS_ARE_INHERITED {
            // They fail on a connection that is gone already, which recv will report.
            let _ = set_timeouts(&client, self.idle_timeout);
        }
        Ok((client, peer.as_socket()))
    }

    /// Is there a connection in the accept queue now?
    pub(crate) fn has_waiting(&self) -> bool {
        self.has_waiting_within(Duration::ZERO).unwrap_or(false)
    }

    /// How many connections are in the accept queue; where the system cannot tell, no more than
    /// one.
    pub(crate) fn waiting(&self) -> usize {
        queue(&self.socket).map_or_else(|| usize::from(self.has_waiting()), |queue| queue.length)
    }

    /// Is there a connection in the accept queue, or does one come within `limit`?
    ///
    /// # Errors
    /// `EINTR` if a signal came first.
    pub(crate) fn has_waiting_within(&self, limit: Duration) -> nix::Result<bool> {
        wait_for(&self.socket, PollFlags::POLLIN, Some(Instant::now() + limit))
    }

    /// Is it still in the listening state? A shutdown(2) by any process that has it ends that.
    pub(crate) fn is_listening(&self) -> bool {
        is_listening(&self.socket).unwrap_or(true)
    }

    /// For poll: readable while there is a connection in the accept queue.
    pub(crate) fn poll_fd(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)
    }

    /// Changes the length of the accept queue. Connections that are in it stay; a connection
    /// that finds no room has to try again later.
    pub(crate) fn resize(&self, backlog: i32) {
        let result = self.socket.listen(backlog);
        narrate::resize(&self.socket, backlog, &result);
        if let Err(error) = result {
            let reason = strerror(&error);
            log::warn!("cannot change the length of the accept queue: {reason}; it stays as it is");
        }
    }

    /// The number by which Linux lists it, in /proc/net/tcp; elsewhere 0.
    pub(crate) fn inode(&self) -> u64 {
        fstat(&self.socket).map_or(0, |data| data.st_ino)
    }

    /// Does it accept IPv4 and IPv6? See ipv6(7), IPV6_V6ONLY.
    pub(crate) fn is_dual_stack(&self) -> bool {
        self.address.is_ipv6() && self.socket.only_v6().is_ok_and(|only| !only)
    }

    /// The number of its descriptor.
    pub(crate) fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        narrate::close_listener(&self.socket);
    }
}

/// Sets what accepted sockets inherit: an echo goes out at once, instead of waiting to be joined
/// with the next one (Nagle); without OOBINLINE each urgent byte would replace the last one.
fn set_options(socket: &Socket, idle_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_out_of_band_inline(true)?;
    if TIMEOUTS_ARE_INHERITED {
        set_timeouts(socket, idle_timeout)?;
    }
    Ok(())
}

/// Limits how long recv waits to the idle time-out, and how long send waits to the interval
/// at which the peer's progress is checked.
fn set_timeouts(socket: &Socket, idle_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(idle_timeout)?;
    socket.set_write_timeout(Some(echo::check_interval(idle_timeout)))
}

/// What the user can do if the address cannot be bound.
fn remedy(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "a process listens there, perhaps an earlier prefork-echo: `prefork-echo status {address}` or `lsof -i \
             :{port}` shows which; end it, or choose another port with --bind"
        ),
        io::ErrorKind::AddrNotAvailable => "give --bind an address of this machine".into(),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "ports below 1024 are root's: start as root, with --user, and the parent binds port {port} before \
             the workers, which alone talk to clients, give up root's rights; or choose a higher port with --bind"
        ),
        _ => "choose another address with --bind".into(),
    }
}
