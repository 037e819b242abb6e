//! The listening socket: socket, bind, listen, once, in the parent.
//!
//! Every worker inherits it by fork and takes clients from its accept queue.
//! The kernel completes handshakes by itself from `listen` on, whether anybody
//! is in `accept` or not.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};
use nix::sys::stat::fstat;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::cli::BindAddress;
use crate::echo;
use crate::error::{Error, strerror};
use crate::explain;
use crate::sys::socket::{TIMEOUTS_ARE_INHERITED, address_bytes, drops, is_listening, readable_within};

/// A socket in the listening state.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    address: SocketAddr,
    backlog: i32,
    idle_timeout: Option<Duration>,
}

impl Listener {
    /// Opens the socket on an address of the host.
    ///
    /// # Errors
    /// If the host is unknown, and as [`Listener::open_first`].
    pub fn open(bind: &BindAddress, backlog: i32, idle_timeout: Duration) -> Result<Listener, Error> {
        Self::open_first(&bind.resolve("give --bind an IP address")?, backlog, idle_timeout)
    }

    /// Opens the socket on the first of `addresses` that can be bound. They are those
    /// of one name, and a client may connect to any of them: so none may be another
    /// server's, or it would get clients that are meant for this one.
    ///
    /// `backlog` is the length of the accept queue; the kernel may shorten it
    /// (on Linux to net.core.somaxconn). An `idle_timeout` of zero is none.
    ///
    /// # Errors
    /// If one of the addresses is taken, or none can be listened on. A port of 0 is
    /// never taken.
    pub fn open_first(
        addresses: &[SocketAddr],
        backlog: i32,
        idle_timeout: Duration,
    ) -> Result<Listener, Error> {
        let idle_timeout = (!idle_timeout.is_zero()).then_some(idle_timeout);
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
                Ok(other) => explain!(
                    "close({}): {address} is free as well; one socket is enough, on the first address",
                    other.as_raw_fd()
                ),
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
        match first {
            Some((socket, address)) => {
                Self::listen(socket, address, backlog, idle_timeout).map_err(|error| failed(address, error))
            }
            None => Err(failure.expect("there is one address at least")),
        }
    }

    /// Makes a socket and gives it its address.
    fn bind(address: SocketAddr, idle_timeout: Option<Duration>) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        let fd = socket.as_raw_fd();
        explain!("socket() = {fd}: a new TCP socket, not yet bound to an address, is descriptor {fd}");

        // Without it the port stays taken for a minute by the last server's
        // connections in TIME_WAIT. A live server's port it doesn't give away.
        socket.set_reuse_address(true)?;
        explain!("setsockopt({fd}, SO_REUSEADDR) = 0: never mind the last server's connections in TIME_WAIT");
        // What is set here, each accepted socket inherits: an echo goes out at
        // once instead of waiting to be joined with the next one (Nagle),
        socket.set_tcp_nodelay(true)?;
        explain!("setsockopt({fd}, TCP_NODELAY) = 0: an echo is to go out at once, also a short one");
        // urgent bytes come among all others, instead of each one in place of the last,
        socket.set_out_of_band_inline(true)?;
        explain!(
            "setsockopt({fd}, SO_OOBINLINE) = 0: bytes sent as urgent come in their order, as all others"
        );
        // and no recv waits for a client for longer than it may be idle, no send
        // without a look whether the client takes anything.
        if TIMEOUTS_ARE_INHERITED {
            set_timeouts(&socket, idle_timeout)?;
            explain!("setsockopt({fd}, SO_RCVTIMEO, SO_SNDTIMEO) = 0: no client is waited for for ever");
        }

        let sockaddr = SockAddr::from(address);
        explain!(
            "bind({fd}, {address}): the kernel gets the address as the bytes {}; the port in it is {}, its high \
             byte first, as on the wire",
            Hex(address_bytes(&sockaddr)),
            Hex(&address.port().to_be_bytes())
        );
        socket.bind(&sockaddr).inspect_err(|error| explain!("bind({fd}, {address}): {}", strerror(error)))?;
        explain!("bind({fd}, {address}) = 0: the socket has its address; nobody can connect yet");
        Ok(socket)
    }

    /// Puts a bound socket into the listening state.
    fn listen(
        socket: Socket,
        address: SocketAddr,
        backlog: i32,
        idle_timeout: Option<Duration>,
    ) -> io::Result<Listener> {
        let fd = socket.as_raw_fd();
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        explain!(
            "getsockname({fd}) = {address}: the port is the one that the kernel has chosen, where 0 was asked for"
        );
        let called = Instant::now();
        socket
            .listen(backlog)
            .inspect_err(|error| explain!("listen({fd}, {backlog}): {}", strerror(error)))?;
        explain!(
            "listen({fd}, {backlog}) = 0, after {:.1?}: it doesn't wait for anybody; from now on the kernel \
             completes handshakes by itself, and up to {backlog} connections (or fewer, if its own limit is \
             lower) wait to be accepted",
            called.elapsed()
        );
        Ok(Listener { socket, address, backlog, idle_timeout })
    }

    /// How long a client may neither send nor take bytes; None is for ever.
    pub fn idle_timeout(&self) -> Option<Duration> {
        self.idle_timeout
    }

    /// Where it listens: the port is the real one, also where 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Blocks until a client has connected, and takes it off the accept queue.
    /// The address is the client's, unless it has vanished in the meantime.
    ///
    /// # Errors
    /// All that accept(2) lists, and `EAGAIN` when nobody came for as long as a
    /// client may be idle: on Linux that time-out is the listening socket's too.
    pub fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        // "raw": nothing but the one call. Close-on-exec, which the other
        // accept sets, is for processes that exec.
        let (client, peer) = self.socket.accept_raw()?;
        if !TIMEOUTS_ARE_INHERITED {
            // A client that is gone already makes these fail; recv will tell.
            let _ = set_timeouts(&client, self.idle_timeout);
        }
        Ok((client, peer.as_socket()))
    }

    /// After so long a wait, can `EAGAIN` not be the idle time-out? Then the socket does not
    /// block as it should. Half of it: two clocks are compared, and the kernel counts in
    /// ticks of up to 10 ms.
    pub fn is_too_early(&self, waited: Duration) -> bool {
        let limit = self.idle_timeout.filter(|_| TIMEOUTS_ARE_INHERITED);
        limit.is_none_or(|limit| waited + Duration::from_millis(10) < limit / 2)
    }

    /// Undoes what each process that shares the socket can do to it for all: stop it
    /// listening (shutdown(2)), make accept not block, change its time-outs. Says what it
    /// has found, one after the other; None: all is well.
    ///
    /// # Errors
    /// `EADDRINUSE`: with the shutdown the port was lost, and another process has it by now.
    pub fn repair(&self) -> io::Result<Option<String>> {
        let mut found = Vec::new();
        if !is_listening(&self.socket)? {
            match self.socket.bind(&self.address.into()) {
                // A port that the user has chosen is still the socket's.
                Err(error) if error.kind() != io::ErrorKind::InvalidInput => return Err(error),
                _ => self.socket.listen(self.backlog)?,
            }
            found.push("did not listen");
        }
        if self.socket.nonblocking()? {
            self.socket.set_nonblocking(false)?;
            found.push("did not block");
        }
        if TIMEOUTS_ARE_INHERITED {
            let before = (self.socket.read_timeout()?, self.socket.write_timeout()?);
            set_timeouts(&self.socket, self.idle_timeout)?;
            if before != (self.socket.read_timeout()?, self.socket.write_timeout()?) {
                found.push("had other time-outs");
            }
        }
        Ok((!found.is_empty()).then(|| found.join(", ")))
    }

    /// Does a connection wait to be accepted, at this moment?
    pub fn has_waiting(&self) -> bool {
        self.has_waiting_within(Duration::ZERO).unwrap_or(false)
    }

    /// Does a connection wait to be accepted, or come within `limit`?
    ///
    /// # Errors
    /// `EINTR` when a signal came first.
    pub fn has_waiting_within(&self, limit: Duration) -> nix::Result<bool> {
        readable_within(&self.socket, limit)
    }

    /// Is it in the listening state still? A shutdown(2) by any process that has it ends that.
    pub fn is_listening(&self) -> bool {
        is_listening(&self.socket).unwrap_or(true)
    }

    /// For poll: a connection waits to be accepted.
    pub fn source(&self) -> PollFd<'_> {
        PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)
    }

    /// How many segments this socket has dropped, most of them because its accept queue
    /// was full. None: the system can't tell.
    pub fn drops(&self) -> Option<u64> {
        drops(&self.socket)
    }

    /// Lets the accept queue hold up to `backlog` connections from now on. Who is
    /// in it stays; who finds no room is left to try again later.
    pub fn resize(&self, backlog: i32) {
        let result = self.socket.listen(backlog);
        explain!(
            "listen({}, {backlog}) = {}: called again, it only changes the length of the accept queue",
            self.fd(),
            if result.is_ok() { 0 } else { -1 }
        );
        if let Err(error) = result {
            log::warn!(
                "cannot change the length of the accept queue: {}; it stays as it is",
                strerror(&error)
            );
        }
    }

    /// The number by which Linux lists it, in /proc/net/tcp; elsewhere 0.
    pub fn inode(&self) -> u64 {
        fstat(&self.socket).map_or(0, |data| data.st_ino)
    }

    /// Is it an IPv6 socket that takes IPv4 as well? See ipv6(7), IPV6_V6ONLY.
    pub fn is_dual_stack(&self) -> bool {
        self.address.is_ipv6() && self.socket.only_v6().is_ok_and(|only| !only)
    }

    /// The number of its descriptor.
    pub fn fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        explain!(
            "close({}): this process listens no more; when no process has the socket open, the port is free",
            self.fd()
        );
    }
}

/// No recv waits for longer than a client may be idle, no send without a look whether it
/// takes anything.
fn set_timeouts(socket: &Socket, idle_timeout: Option<Duration>) -> io::Result<()> {
    socket.set_read_timeout(idle_timeout)?;
    socket.set_write_timeout(Some(echo::check_interval(idle_timeout)))
}

/// Bytes as od shows them: "1e 61".
struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for byte in self.0 {
            write!(f, "{between}{byte:02x}")?;
            between = " ";
        }
        Ok(())
    }
}

/// What to do about an address that can't be had.
fn remedy(error: &io::Error, address: SocketAddr) -> String {
    let port = address.port();
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "somebody listens there, perhaps an earlier prefork-echo: `prefork-echo status {address}` or `lsof -i \
             :{port}` shows who; end it, or choose another port with --bind"
        ),
        io::ErrorKind::AddrNotAvailable => "give --bind an address of this machine".into(),
        io::ErrorKind::PermissionDenied if port < 1024 => format!(
            "ports below 1024 are root's: start as root, with --user, and the parent binds port {port} before \
             the workers, who alone talk to clients, give up root's rights; or choose a higher port with --bind"
        ),
        _ => "choose another address with --bind".into(),
    }
}
