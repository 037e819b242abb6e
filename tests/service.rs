//! What a service manager relies on: sockets that it passes (sd_listen_fds(3)), and what it is
//! told (sd_notify(3)).

use std::fs::File;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::models::{ALL, in_each};
use crate::common::{
    PATIENCE, Server, SetOnDrop, binary, connect, echo, heavy, number_following, processes, rounds, run,
    wait_until,
};

/// The binary with `socket` as descriptor 3, and `number` of them announced, 1 or 2.
fn activated(socket: impl Into<OwnedFd>, number: u32, arguments: &[&str]) -> Command {
    let program = binary();
    let mut command = Command::new("bash");
    let more = if number > 1 { "4<&0" } else { "" };
    let script = format!("exec 3<&0 {more} </dev/null; LISTEN_FDS={number} LISTEN_PID=$$ exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(program.get_program()).args(arguments);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.stdin(Stdio::from(socket.into()));
    command
}

fn bind() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[test]
fn a_passed_socket_is_used_instead_of_bind_and_stays_open() {
    in_each(&ALL, |model| {
        let (socket, address) = bind();
        let start = || {
            let options = ["--model", model, "--clients", "1", "--workers", "2", "--bind", "127.0.0.1:1"];
            Server::spawn_with_stdin(activated(socket.try_clone().unwrap(), 1, &options))
        };
        let mut server = start();
        assert_eq!(server.address, address);
        let limit = server.status()["accept_queue"]["limit"].clone();
        let mut client = server.connect();
        echo(&mut client, b"served");
        server.signal(Signal::SIGTERM);
        assert_eq!(client.read(&mut [0]).unwrap(), 0, "an end of file, and no reset");
        assert_eq!(server.wait_code(), 0);

        // The socket goes on listening: this client waits for the next server.
        let mut waiting = connect(address);
        let mut server = start();
        echo(&mut waiting, b"served by the next one");
        assert_eq!(server.status()["accept_queue"]["limit"], limit, "the queue has kept its length");
        drop(waiting);
        assert_eq!(server.stop(), 0);
    });
}

#[test]
#[cfg(target_os = "linux")]
fn handshakes_that_clients_reset_do_not_delay_the_end() {
    crate::overflow::resets_do_not_delay_the_end(|| {
        let (socket, address) = bind();
        let mut server = Server::spawn_with_stdin(activated(socket, 1, &["-q", "--workers", "1"]));
        (address, move || assert_eq!(server.stop(), 0))
    });
}

#[test]
fn a_passed_socket_stays_open_after_an_upgrade() {
    let (socket, address) = bind();
    let mut server = Server::spawn_with_stdin(activated(socket.try_clone().unwrap(), 1, &["--workers", "2"]));
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for_log(&["SIGUSR2: the new server (pid "]);
    assert_eq!(server.wait().code(), Some(0));
    server.echo(b"served by the new server");
    kill(Pid::from_raw(number_following(&line, "the new server (pid ")), Signal::SIGTERM).unwrap();
    wait_until("no process is left", || !server.has_processes_left());
    let mut waiting = connect(address);
    let mut server = Server::spawn_with_stdin(activated(socket, 1, &[]));
    echo(&mut waiting, b"served by the next one");
    drop(waiting);
    assert_eq!(server.stop(), 0);
}

#[test]
fn no_connection_is_lost_in_a_restart_by_socket_activation() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let (socket, address) = bind();
        let (served, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let options = ["--model", model, "--clients", "1", "-q"];
        let start = || Server::spawn_with_stdin(activated(socket.try_clone().unwrap(), 1, &options));
        thread::scope(|scope| {
            let _end = SetOnDrop(&stop);
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        echo(&mut connect(address), b"not one is refused, reset or forgotten");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for _ in 0..rounds(3, 20) {
                let mut server = start();
                let before = served.load(Ordering::Relaxed);
                wait_until("it serves", || served.load(Ordering::Relaxed) > before + 20);
                assert_eq!(server.stop(), 0);
            }
            // The clients that wait now are served, too.
            stop.store(true, Ordering::Relaxed);
            let mut server = start();
            wait_until("all clients are done", || server.status()["accept_queue"]["length"] == 0);
            assert_eq!(server.stop(), 0);
        });
    });
}

#[test]
fn what_is_no_listening_tcp_socket_is_refused() {
    let (socket, _) = bind();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (listening, address) = bind();
    let connected = connect(address);
    let (unix, _other) = std::os::unix::net::UnixStream::pair().unwrap();
    for (socket, number, why) in [
        (OwnedFd::from(socket), 2, "LISTEN_FDS passes 2 sockets instead of one"),
        (udp.into(), 1, "descriptor 3, which is no TCP socket"),
        (unix.into(), 1, "descriptor 3, which is no TCP socket"),
        (connected.into(), 1, "descriptor 3, which does not listen"),
        (File::open("/dev/null").unwrap().into(), 1, "descriptor 3, which is no socket"),
    ] {
        let mut command = activated(socket, number, &[]);
        let output = command.output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(why) && message.contains("ListenStream="), "{message}");
    }
    drop(listening);

    // What is meant for another process is not touched.
    let mut command = binary();
    command.args(["--bind", "nowhere.invalid"]).env("LISTEN_FDS", "7").env("LISTEN_PID", "1");
    let (code, message) = run(command);
    assert!(code == 2 || message.contains("nowhere.invalid"), "{message}");
}

/// A service manager's socket, and what it hears.
struct Manager {
    socket: UnixDatagram,
    directory: tempfile::TempDir,
}

impl Manager {
    fn new() -> Manager {
        let directory = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Manager { socket, directory }
    }

    fn start(&self, variables: &[(&str, &str)], arguments: &[&str]) -> Server {
        let mut command = binary();
        command.args(["--bind", "127.0.0.1:0"]).args(arguments).envs(variables.iter().copied());
        command.env("NOTIFY_SOCKET", self.directory.path().join("notify"));
        Server::spawn(command)
    }

    /// The next message, as lines.
    fn hear(&self) -> Vec<String> {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).expect("there is a message");
        String::from_utf8_lossy(&bytes[..length]).lines().map(Into::into).collect()
    }
}

#[test]
fn the_service_manager_hears_of_each_stage() {
    let manager = Manager::new();
    let mut server = manager.start(&[], &["--workers", "2"]);
    let serving = format!("STATUS=serving {} with 2 workers", server.address);
    assert_eq!(manager.hear(), ["READY=1", &serving]);

    server.signal(Signal::SIGHUP);
    let reloading = manager.hear();
    assert_eq!(reloading[..2], ["RELOADING=1", "STATUS=replacing 2 workers one by one"]);
    let time = reloading[2].strip_prefix("MONOTONIC_USEC=").unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    if let Some(seconds) = uptime.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok()) {
        let told = time.parse::<u64>().unwrap() / 1_000_000;
        assert!(
            told <= seconds + 1 && told + 60 > seconds,
            "{told} s, and the machine is up for {seconds} s"
        );
    }
    assert_eq!(manager.hear(), ["READY=1", &serving]);
    wait_until("all are replaced", || {
        server.log().iter().filter(|line| line.contains("may leave")).count() == 2
    });

    server.signal(Signal::SIGTERM);
    assert_eq!(manager.hear(), ["STOPPING=1", "STATUS=finishing the clients that are connected"]);
    assert_eq!(server.wait_code(), 0);
    manager.socket.set_nonblocking(true).unwrap();
    assert!(manager.socket.recv(&mut [0]).is_err(), "each is told once");
}

#[test]
fn the_service_manager_hears_of_an_upgrade() {
    let manager = Manager::new();
    let mut server = manager.start(&[("WATCHDOG_USEC", "500000"), ("WATCHDOG_PID", "")], &["--workers", "2"]);
    let hear = || loop {
        let message = manager.hear();
        if message != ["WATCHDOG=1"] {
            return message;
        }
    };
    let serving = format!("STATUS=serving {} with 2 workers", server.address);
    assert_eq!(hear(), ["READY=1", &serving]);
    server.signal(Signal::SIGUSR2);
    let line = server.wait_for_log(&["SIGUSR2: the new server (pid "]);
    let new = number_following(&line, "the new server (pid ");
    assert_eq!(hear(), [format!("MAINPID={new}")]);
    assert_eq!(hear(), ["READY=1", &serving]);
    assert_eq!(server.wait().code(), Some(0));
    // From now on the new one is watched.
    wait_until("it pings", || manager.hear() == ["WATCHDOG=1"]);
    kill(Pid::from_raw(new), Signal::SIGTERM).unwrap();
    assert_eq!(hear(), ["STOPPING=1", "STATUS=finishing the clients that are connected"]);
}

#[test]
fn the_watchdog_hears_from_the_loop_of_the_parent() {
    let manager = Manager::new();
    let server = manager.start(&[("WATCHDOG_USEC", "200000")], &[]);
    let mut pings = 0;
    while pings < 5 {
        pings += usize::from(manager.hear() == ["WATCHDOG=1"]);
    }
    // A parent that hangs is silent.
    server.signal(Signal::SIGSTOP);
    wait_until("it is stopped", || {
        processes().iter().any(|process| process.pid == server.pid && process.state == 'T')
    });
    manager.socket.set_nonblocking(true).unwrap();
    while manager.socket.recv(&mut [0; 100]).is_ok() {}
    thread::sleep(Duration::from_millis(500)); // Two and a half intervals.
    assert!(manager.socket.recv(&mut [0]).is_err());
}
