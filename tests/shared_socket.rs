//! What one process can do to the listening socket that all share: the server puts it
//! right, and goes on.
//!
//! Linux only: there a process can take a copy of another one's descriptor
//! (pidfd_getfd(2)), and so do from outside what a worker gone wrong would do.
#![cfg(target_os = "linux")]

use std::process::Command;
use std::time::{Duration, Instant};

use crate::common::{Server, binary, echo, heavy, rounds, wait_until};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The numbers of these two system calls are the same on all machines.
const TAKE_COPY: &str = r#"
    use Socket; use Fcntl;
    my ($pid, $fd) = @ARGV;
    my $pidfd = syscall(434, $pid + 0, 0); # pidfd_open
    my $copy = syscall(438, $pidfd, $fd + 0, 0); # pidfd_getfd
    exit 77 if $copy < 0;
    open(my $socket, "+<&=", $copy) or die "open: $!";
"#;

/// The parent's only TCP socket: the others, for its signals, are of Unix's kind.
fn listening_descriptor(server: &Server) -> i32 {
    let inode = |fd: &str| std::fs::read_link(format!("/proc/{}/fd/{fd}", server.pid)).ok();
    let list = std::fs::read_to_string(format!("/proc/{}/net/tcp", server.pid)).unwrap();
    let port = format!(":{:04X} ", server.address.port());
    let line = list.lines().find(|line| line.contains(&port) && line.contains(" 0A ")).unwrap();
    let socket = format!("socket:[{}]", line.split_whitespace().nth(9).unwrap());
    (3..20).find(|fd| inode(&fd.to_string()).is_some_and(|link| link.as_os_str() == &*socket)).unwrap()
}

/// Does something, in Perl, to `$socket`: the listening socket of the server. False: this
/// system doesn't let us.
fn change_socket(server: &Server, deed: &str) -> bool {
    let fd = listening_descriptor(server);
    let script = format!("{TAKE_COPY} {deed} or die $!;");
    let status =
        Command::new("perl").args(["-e", &script, &server.pid.to_string(), &fd.to_string()]).status();
    let code = status.ok().and_then(|status| status.code());
    if matches!(code, None | Some(77)) {
        println!("skipped: it takes perl, and the right to trace the server");
        return false;
    }
    assert_eq!(code, Some(0), "{deed}");
    true
}

const STOP_LISTENING: &str = "shutdown($socket, 2)";
const DO_NOT_BLOCK: &str = "fcntl($socket, F_SETFL, O_RDWR | O_NONBLOCK)";
const TINY_TIME_OUTS: &str = "setsockopt($socket, SOL_SOCKET, SO_RCVTIMEO, pack('l!l!', 0, 1)) and \
                              setsockopt($socket, SOL_SOCKET, SO_SNDTIMEO, pack('l!l!', 0, 1))";

/// Processor time of a process so far, in hundredths of a second.
fn processor_time(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum()
}

/// One connection that may be refused or cut: is it served?
fn is_served(server: &Server) -> bool {
    use std::io::{Read, Write};
    let Ok(mut client) = std::net::TcpStream::connect_timeout(&server.address, Duration::from_secs(1)) else {
        return false;
    };
    client.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut answer = [0; 5];
    client.write_all(b"hello").and_then(|()| client.read_exact(&mut answer)).is_ok() && &answer == b"hello"
}

#[track_caller]
fn assert_restored_socket(server: &mut Server, deed: &str, words: &str) {
    server.wait_for_workers(4);
    let put_right = |server: &Server| {
        server.log().iter().filter(|line| line.contains("parent") && line.contains("put right")).count()
    };
    let before = put_right(server);
    if !change_socket(server, deed) {
        return;
    }
    let start = Instant::now();
    // Each worker that sleeps in accept is woken, by a client if by nothing else.
    wait_until("the socket is put right", || {
        is_served(server);
        put_right(server) > before
    });
    server.wait_for_log(&["parent", "the listening socket", words, "put right"]);
    // Each of the workers has perhaps still to notice; then all are well.
    wait_until("twenty clients in a row are served", || (0..20).all(|_| is_served(server)));
    println!("spoilt by {deed}: put right, and twenty clients served, after {:?}", start.elapsed());
    let workers = server.wait_for_workers(4);
    let before: u64 = workers.iter().map(|worker| processor_time(*worker)).sum();
    std::thread::sleep(Duration::from_millis(500)); // The time that is looked at.
    let used = workers.iter().map(|worker| processor_time(*worker)).sum::<u64>() - before;
    assert!(used < 25, "{used} hundredths of a second: a worker spins");
    assert!(!server.log().iter().any(|line| line.contains("giving up") || line.contains("is replaced in")));
}

#[test]
fn a_shut_down_socket_listens_again() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "4"]);
    for _ in 0..rounds(2, 10) {
        assert_restored_socket(&mut server, STOP_LISTENING, "did not listen");
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_shut_down_socket_listens_again_on_a_given_port() {
    let _alone = heavy();
    // An address of its own: of 127.0.0.1 another test could take the port in between.
    let address = std::net::TcpListener::bind("127.0.0.3:0").unwrap().local_addr().unwrap();
    let mut command = binary();
    command.args(["--bind", &address.to_string(), "--workers", "4"]);
    let mut server = Server::spawn(command);
    assert_restored_socket(&mut server, STOP_LISTENING, "did not listen");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_nonblocking_socket_is_made_blocking_again() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "4"]);
    assert_restored_socket(&mut server, DO_NOT_BLOCK, "did not block");
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_nonblocking_socket_is_noticed_without_an_idle_timeout() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "4", "--idle-timeout", "0"]);
    assert_restored_socket(&mut server, DO_NOT_BLOCK, "did not block");
    assert_eq!(server.stop(), 0);
}

#[test]
fn changed_socket_timeouts_are_restored() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "4"]);
    assert_restored_socket(&mut server, TINY_TIME_OUTS, "time-outs");
    assert_eq!(server.stop(), 0);
}

#[test]
fn an_idle_timeout_ends_no_worker() {
    for limit in ["1ms", "20ms", "100ms"] {
        let server = Server::start(&["--workers", "2", "--idle-timeout", limit]);
        let workers = server.wait_for_workers(2);
        std::thread::sleep(Duration::from_millis(600)); // Some of them go by.
        assert_eq!(server.workers(), workers, "--idle-timeout {limit}");
    }
}

#[test]
fn a_changed_socket_during_shutdown_cuts_no_connection() {
    for deed in [STOP_LISTENING, DO_NOT_BLOCK, TINY_TIME_OUTS] {
        let mut server = Server::start(&["--workers", "2"]);
        let mut client = server.connect();
        echo(&mut client, b"connected");
        server.signal(Signal::SIGTERM);
        server.wait_for_log(&["shutting down"]);
        // A leaving worker closes a quiet connection.
        let changed = std::thread::scope(|scope| {
            let changing = scope.spawn(|| change_socket(&server, deed));
            while !changing.is_finished() {
                echo(&mut client, b"not quiet");
            }
            changing.join().unwrap()
        });
        if !changed {
            return;
        }
        echo(&mut client, b"served to the end");
        drop(client);
        assert_eq!(server.wait_code(), 0, "{deed}");
    }
}
