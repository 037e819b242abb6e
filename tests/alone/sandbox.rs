//! What a process in the sandbox is refused: each attempt is made outside, where it
//! succeeds, then behind each door alone (and no_new_privs, without which only root may
//! close the others).
//!
//! It forks, which wants a single thread; so it is a program of its own, without
//! the threads of the usual test harness. Linux only, as the sandbox is.

#[cfg(not(target_os = "linux"))]
fn main() {}

#[cfg(target_os = "linux")]
fn main() {
    linux::each_layer_refuses_its_calls();
    linux::no_connection_is_made_by_tcp_fast_open();
    linux::a_worker_that_multiplexes_has_no_pipe();
    linux::the_rights_of_root_cannot_be_regained();
}

#[cfg(target_os = "linux")]
mod linux {
    use std::fs::File;
    use std::io::{self, PipeReader, PipeWriter, Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd};
    use std::os::unix::net::UnixStream;
    use std::os::unix::process::CommandExt;
    use std::process::Command;
    use std::time::Duration;

    use nix::errno::Errno;
    use nix::fcntl::{FcntlArg, OFlag, SpliceFFlags, fcntl, splice};
    use nix::sys::ptrace;
    use nix::sys::signal::{Signal, kill};
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{Gid, Uid, geteuid, getppid, seteuid, setgid, setgroups, setuid};
    use prefork_echo::config::Model;
    use prefork_echo::echo::BUFFER_SIZE;
    use prefork_echo::sys::credentials::{Credentials, find_user};
    use prefork_echo::sys::sandbox::Layer::{self, Landlock, NoNewPrivs, Seccomp};
    use prefork_echo::sys::splice::Pipe;
    use prefork_echo::sys::{memory, process};
    use prefork_echo::worker::syscalls;
    use socket2::{Domain, SockRef, Socket, Type};

    /// What a process has from before.
    struct Held {
        file: File,
        /// Not bound, not connected.
        socket: Socket,
        /// Other processes share it.
        listener: TcpListener,
        /// A client of its own.
        client: TcpStream,
        /// The other end of it, which has sent five bytes.
        _peer: TcpStream,
        /// Other processes share it. There are bytes in it.
        shared_pipe: (PipeReader, PipeWriter),
    }

    type Attempt = (&'static str, fn(&Held) -> io::Result<()>, &'static [Layer]);

    fn anywhere() -> SocketAddr {
        "127.0.0.1:0".parse().expect("it is an address")
    }

    fn do_not_block(file: impl AsFd) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(&file, FcntlArg::F_GETFL)?);
        Ok(fcntl(&file, FcntlArg::F_SETFL(flags)).map(drop)?)
    }

    const MOVE: SpliceFFlags = SpliceFFlags::SPLICE_F_MOVE;

    /// As a worker does in bulk.
    fn splice_through_a_pipe(held: &Held) -> io::Result<()> {
        let pipe = Pipe::new(BUFFER_SIZE)?;
        let length = pipe.fill(&held.client, BUFFER_SIZE)?;
        let sent = pipe.drain(&held.client, length - 1)?;
        assert_eq!((length, sent), (5, 4));
        pipe.read(&mut [0])
    }

    /// What is tried, and which doors refuse it.
    const ATTEMPTS: &[Attempt] = &[
        ("open a file", |_| File::open("/etc/passwd").map(drop), &[Landlock, Seccomp]),
        ("make a file", |_| tempfile::tempfile().map(drop), &[Landlock, Seccomp]),
        ("fork", |_| Ok(waitpid(process::fork(|| 0)?, None).map(drop)?), &[Seccomp]),
        // /bin/true ends the process with status 0: success.
        ("exec", |_| Err(Command::new("/bin/true").exec()), &[Landlock, Seccomp]),
        ("a TCP socket", |_| Socket::new(Domain::IPV4, Type::STREAM, None).map(drop), &[Seccomp]),
        ("a UDP socket", |_| UdpSocket::bind(anywhere()).map(drop), &[Seccomp]),
        ("a Unix socket", |_| UnixStream::pair().map(drop), &[Seccomp]),
        ("bind", |held| held.socket.bind(&anywhere().into()), &[Landlock, Seccomp]),
        ("connect", |held| held.socket.connect(&held.listener.local_addr()?.into()), &[Landlock, Seccomp]),
        ("signal the parent", |_| Ok(kill(getppid(), Signal::SIGCONT)?), &[Landlock, Seccomp]),
        ("be traced", |_| Ok(ptrace::traceme()?), &[Seccomp]),
        (
            "change a file's owner",
            |held| Ok(nix::unistd::fchown(&held.file, Some(geteuid()), None)?),
            &[Seccomp],
        ),
        (
            "raise a limit",
            |_| {
                let (soft, hard) =
                    nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE)?;
                Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, soft, hard)?)
            },
            &[Seccomp],
        ),
        // What would be felt by all processes that share the socket, or the file.
        ("change the length of the queue", |held| SockRef::from(&held.listener).listen(1), &[Seccomp]),
        ("end the listening", |held| SockRef::from(&held.listener).shutdown(Shutdown::Both), &[Seccomp]),
        // By fcntl, and by ioctl.
        ("let accept not block", |held| SockRef::from(&held.listener).set_nonblocking(true), &[Seccomp]),
        ("let accept not block, otherwise", |held| held.listener.set_nonblocking(true), &[Seccomp]),
        ("let the log not block", |_| do_not_block(io::stderr()), &[Seccomp]),
        (
            "change the time-out of accept",
            |held| SockRef::from(&held.listener).set_read_timeout(Some(Duration::from_millis(1))),
            &[Seccomp],
        ),
        ("change another option", |held| SockRef::from(&held.listener).set_keepalive(true), &[Seccomp]),
        (
            "read a file by mapping it",
            |held| Ok(memory::map_read_only::<std::sync::atomic::AtomicU64>(&held.file).map(drop)?),
            &[Seccomp],
        ),
        ("read what others share", |held| (&held.shared_pipe.0).read(&mut [0]).map(drop), &[Seccomp]),
        (
            "splice what others share",
            |held| Ok(splice(&held.shared_pipe.0, None, &held.client, None, 1, MOVE).map(drop)?),
            &[Seccomp],
        ),
        (
            "splice into what others share",
            |held| Ok(splice(&held.client, None, &held.shared_pipe.1, None, 1, MOVE).map(drop)?),
            &[Seccomp],
        ),
        (
            "change the size of what others share",
            |held| Ok(fcntl(&held.shared_pipe.1, FcntlArg::F_SETPIPE_SZ(8192)).map(drop)?),
            &[Seccomp],
        ),
        // What a worker lives by.
        ("splice through a pipe", splice_through_a_pipe, &[]),
        (
            "make a pipe larger",
            |_| Ok(fcntl(io::pipe()?.1, FcntlArg::F_SETPIPE_SZ(BUFFER_SIZE as i32)).map(drop)?),
            &[],
        ),
        ("half-close a connection", |held| held.client.shutdown(Shutdown::Write), &[]),
        ("let a connection not block", |held| SockRef::from(&held.client).set_nonblocking(true), &[]),
        (
            "change a connection's time-out",
            |held| held.client.set_read_timeout(Some(Duration::from_millis(1))),
            &[],
        ),
        ("send", |held| SockRef::from(&held.client).send(b"hello").map(drop), &[]),
        ("have more memory", |_| Ok(memory::map_private(1 << 20).map(drop)?), &[]),
        (
            "look up the parent",
            |_| {
                getppid();
                Ok(())
            },
            &[],
        ),
        ("signal oneself", |_| Ok(nix::sys::signal::raise(Signal::SIGCONT)?), &[]),
        ("read the time-out of a socket", |held| held.socket.read_timeout().map(drop), &[]),
        ("write", |_| nix::unistd::write(io::stdout(), b"").map(drop).map_err(io::Error::from), &[]),
    ];

    /// Exit codes of a child.
    const DONE: u8 = 0;
    const REFUSED: u8 = 1;
    const FAILED: u8 = 2;
    const NO_DOOR: u8 = 3;

    /// Makes the attempt in a child, behind the door.
    fn try_it(attempt: &Attempt, door: Option<Layer>) -> u8 {
        try_it_in(Model::Process, attempt, door)
    }

    fn try_it_in(model: Model, attempt: &Attempt, door: Option<Layer>) -> u8 {
        let listener = TcpListener::bind(anywhere()).expect("a port is free");
        let client = TcpStream::connect(listener.local_addr().expect("it is bound"));
        let mut peer = listener.accept().expect("it is connected").0;
        peer.write_all(b"hello").expect("it is connected");
        let mut shared_pipe = io::pipe().expect("two descriptors more");
        shared_pipe.1.write_all(b"hello").expect("there is room");
        let held = Held {
            file: tempfile::tempfile().expect("room for a file"),
            socket: Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor more"),
            listener,
            client: client.expect("it listens"),
            _peer: peer,
            shared_pipe,
        };
        in_child(|| {
            if let Some(door) = door {
                let (reader, writer) = (&held.shared_pipe.0, &held.shared_pipe.1);
                let shared = [0, 1, 2, held.listener.as_raw_fd(), reader.as_raw_fd(), writer.as_raw_fd()];
                let allowed = syscalls::allowed(&shared, model);
                NoNewPrivs.enter(&allowed).expect("Linux has it since 3.5");
                if let Err(why) = door.enter(&allowed) {
                    println!("{door:?}: {why:?}");
                    return NO_DOOR;
                }
            }
            match attempt.1(&held) {
                Ok(()) => DONE,
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => REFUSED,
                Err(error) => {
                    eprintln!("{}: {error}", attempt.0);
                    FAILED
                }
            }
        })
    }

    fn in_child(work: impl FnOnce() -> u8) -> u8 {
        let child = process::fork(work).expect("a process more");
        match waitpid(child, None).expect("it is our child") {
            WaitStatus::Exited(_, code) => code as u8,
            // A tracer is told of the signals before the process is.
            WaitStatus::Stopped(..) => DONE,
            status => panic!("{status:?}"),
        }
    }

    pub fn each_layer_refuses_its_calls() {
        for attempt in ATTEMPTS {
            let (name, _, doors) = attempt;
            assert_eq!(try_it(attempt, None), DONE, "{name}, outside");
            for door in [Landlock, Seccomp] {
                let outcome = try_it(attempt, Some(door));
                let expected = if doors.contains(&door) { REFUSED } else { DONE };
                // A kernel that lacks the door is no failure of ours.
                assert!(outcome == expected || outcome == NO_DOOR, "{name}, behind {door:?}: {outcome}");
            }
        }
        println!("test each_layer_refuses_its_calls ... ok, {} attempts", ATTEMPTS.len());
    }

    /// Apart from the others: some kernels know no such connect, and some landlocks refuse it.
    pub fn no_connection_is_made_by_tcp_fast_open() {
        let connect = |held: &Held| {
            let to = held.listener.local_addr()?.into();
            held.socket.send_to_with_flags(b"hello", &to, nix::libc::MSG_FASTOPEN).map(drop)
        };
        let attempt: Attempt = ("connect by the first bytes", connect, &[Seccomp]);
        assert_ne!(try_it(&attempt, None), REFUSED, "outside");
        assert!(matches!(try_it(&attempt, Some(Seccomp)), REFUSED | NO_DOOR), "behind seccomp");
        println!("test no_connection_is_made_by_tcp_fast_open ... ok");
    }

    pub fn a_worker_that_multiplexes_has_no_pipe() {
        let pipe: Attempt = ("make a pipe", |_| io::pipe().map(drop), &[Seccomp]);
        for (model, expected) in [(Model::Multiplex, REFUSED), (Model::Thread, DONE)] {
            let outcome = try_it_in(model, &pipe, Some(Seccomp));
            assert!(outcome == expected || outcome == NO_DOOR, "{model:?}: {outcome}");
        }
        println!("test a_worker_that_multiplexes_has_no_pipe ... ok");
    }

    pub fn the_rights_of_root_cannot_be_regained() {
        if !geteuid().is_root() {
            return println!("test the_rights_of_root_cannot_be_regained ... only root has any");
        }
        let user = find_user("nobody").expect("users can be told").expect("nobody is a user");
        let rights = Credentials::new(Some(&user), user.gid).expect("it has groups");
        let (root, root_group) = (Uid::from_raw(0), Gid::from_raw(0));
        let left = in_child(|| {
            // Some that are to go, as root has on many systems.
            setgroups(&[root_group, Gid::from_raw(4)]).expect("root may");
            rights.take().expect("root may");
            assert!(!nix::unistd::getgroups().expect("it has few").contains(&root_group));
            assert!(!Uid::current().is_root() && Gid::current() != root_group);
            let attempts = [setuid(root), seteuid(root), setgid(root_group), setgroups(&[root_group])];
            attempts.into_iter().filter(|result| *result != Err(Errno::EPERM)).count() as u8
        });
        assert_eq!(left, 0, "so many ways lead back");
        println!("test the_rights_of_root_cannot_be_regained ... ok");
    }
}
