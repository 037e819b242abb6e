//! SIGUSR2: another server takes over without a gap, or the old one goes on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::models::{ALL, in_each};
use crate::common::{
    Server, SetOnDrop, binary, command, connect, echo, heavy, processes, read_to_end, rounds, wait_until,
};

/// A server that runs from a copy of the program, so that another file can take its place.
struct Upgradable {
    server: Server,
    directory: tempfile::TempDir,
}

impl Upgradable {
    fn start(arguments: &[&str]) -> Upgradable {
        let directory = tempfile::tempdir().unwrap();
        let copy = directory.path().join("prefork-echo");
        // By cp: a copy that another test's fork has open for writing can't be executed.
        let copied = Command::new("cp").arg(env!("CARGO_BIN_EXE_prefork-echo")).arg(&copy).status().unwrap();
        assert!(copied.success());
        let mut command = Command::new(&copy);
        for (name, value) in binary().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        let pid_file = directory.path().join("pid");
        command.args(["--bind", "127.0.0.1:0", "--pid-file"]).arg(pid_file).args(arguments);
        Upgradable { server: Server::spawn(command), directory }
    }

    /// The pid in the pid file.
    fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.directory.path().join("pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// Replaces the program's file.
    fn replace(&self, script: Option<&str>) {
        let path = self.directory.path().join("prefork-echo");
        let new = self.directory.path().join("new");
        match script {
            None => fs::remove_file(path).unwrap(),
            Some(script) => {
                fs::write(&new, script).unwrap();
                fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).unwrap();
                fs::rename(new, path).unwrap();
            }
        }
    }

    /// Upgrades, and returns the pid of the new server, which has replaced the old one.
    #[track_caller]
    fn upgrade(&self, old: Pid) -> Pid {
        kill(old, Signal::SIGUSR2).unwrap();
        let mut new = old;
        wait_until("there is another server", || {
            new = self.pid().expect("at each moment there is a pid in the file");
            new != old
        });
        new
    }

    /// What `status` says of the server at this address.
    fn status(&self) -> (i32, String, String) {
        command(&["status", &self.server.address.to_string()])
    }

    /// The processes of the server and of those that have replaced it.
    fn processes(&self) -> usize {
        let group = self.server.pid;
        processes().iter().filter(|process| process.group == group && process.state != 'Z').count()
    }

    /// Ends the server that is there now, and all is gone.
    #[track_caller]
    fn end(&self) {
        kill(self.pid().expect("the pid file has the server's"), Signal::SIGTERM).unwrap();
        wait_until("no process is left", || self.processes() == 0);
        assert!(self.pid().is_none(), "the pid file stays");
        let left = fs::read_dir(self.directory.path()).unwrap().flatten().map(|entry| entry.file_name());
        let left: Vec<_> = left.filter(|name| *name != "prefork-echo").collect();
        assert!(left.is_empty(), "{left:?} is left");
        let runtime = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("prefork-echo");
        let own = self.server.address.to_string();
        let left = fs::read_dir(runtime).unwrap().flatten().map(|entry| entry.file_name());
        assert!(!left.into_iter().any(|name| name.to_string_lossy().contains(&own)), "a scoreboard is left");
        std::net::TcpListener::bind(self.server.address).expect("the port is free");
    }
}

#[test]
fn ten_upgrades_under_load_lose_no_connection() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let mut upgradable = Upgradable::start(&["--model", model, "--workers", "2", "-q"]);
        let (served, stop) = (AtomicU64::new(0), AtomicBool::new(false));
        let address = upgradable.server.address;
        let mut pid = upgradable.server.pid;
        thread::scope(|scope| {
            let _end = SetOnDrop(&stop);
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = connect(address);
                        echo(&mut client, b"not one is refused");
                        echo(&mut client, b"or reset");
                        client.shutdown(std::net::Shutdown::Write).unwrap();
                        assert_eq!(read_to_end(&mut client), b"");
                        served.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let (code, stdout, stderr) = upgradable.status();
                    assert_eq!(code, 0, "status shows no living server: {stderr}");
                    // The old server has its name for an instant after it has begun to leave.
                    assert!(stdout.contains("running for") || stdout.contains("draining"), "{stdout}");
                }
            });
            for _ in 0..10 {
                let before = served.load(Ordering::Relaxed);
                pid = upgradable.upgrade(pid);
                wait_until("it serves", || served.load(Ordering::Relaxed) > before + 20);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(upgradable.server.wait().code(), Some(0), "the first server has cut no client");
        assert_eq!(upgradable.pid(), Some(pid));
        upgradable.end();
    });
}

#[test]
fn a_client_that_stays_is_finished_by_the_old_server() {
    let mut upgradable = Upgradable::start(&["--workers", "1"]);
    let mut client = upgradable.server.connect();
    echo(&mut client, b"served by the old server");
    let new = upgradable.upgrade(upgradable.server.pid);
    assert_eq!(read_to_end(&mut client), b"", "an end of file when it was quiet");
    assert_eq!(upgradable.server.wait().code(), Some(0));
    let (code, stdout, _) = upgradable.status();
    assert!(code == 0 && stdout.contains(&format!("(pid {new})")), "{stdout}");
    upgradable.server.echo(b"served by the new one");
    upgradable.end();
}

#[test]
#[cfg(target_os = "linux")]
fn handshakes_that_clients_reset_do_not_delay_the_end_of_the_new_server() {
    crate::overflow::resets_do_not_delay_the_end(|| {
        let upgradable = Upgradable::start(&["-q", "--workers", "1"]);
        let address = upgradable.server.address;
        crate::overflow::reset_handshakes(address);
        upgradable.upgrade(upgradable.server.pid);
        (address, move || upgradable.end())
    });
}

#[test]
fn term_to_an_old_server_that_leaves_cuts_no_client() {
    let mut upgradable = Upgradable::start(&["--workers", "1"]);
    let mut client = upgradable.server.connect();
    upgradable.upgrade(upgradable.server.pid);
    // For the old server it is the first one.
    for _ in 0..10 {
        echo(&mut client, b"never quiet for 0.3 s");
        thread::sleep(Duration::from_millis(50)); // The client's rhythm.
    }
    upgradable.server.signal(Signal::SIGTERM);
    upgradable.server.wait_for_log(&["SIGTERM: leaving in order already"]);
    echo(&mut client, b"not cut");
    assert_eq!(read_to_end(&mut client), b"");
    assert_eq!(upgradable.server.wait().code(), Some(0));
    upgradable.end();
}

#[test]
fn when_the_new_program_is_missing_or_fails_the_old_server_goes_on() {
    let _alone = heavy();
    let upgradable = Upgradable::start(&["--workers", "2"]);
    let (pid, workers) = (upgradable.server.pid, upgradable.server.workers());
    let mut client = upgradable.server.connect();
    for (script, why) in [
        (None, "cannot execute "),
        (Some("no program"), "cannot execute "),
        (Some("#!/bin/sh\nexit 7\n"), "left with exit code 7: this one goes on"),
        (Some("#!/bin/sh\nkill -11 $$\n"), "killed by SIGSEGV: this one goes on"),
        (Some("#!/bin/sh\nexec 4<&-\nexec sleep 100\n"), "killed by SIGKILL: this one goes on"),
    ] {
        upgradable.replace(script);
        let failures =
            || upgradable.server.log().iter().filter(|line| line.contains("this one goes on")).count();
        let before = failures();
        upgradable.server.signal(Signal::SIGUSR2);
        wait_until("it has failed", || failures() > before);
        assert!(
            upgradable.server.log().iter().any(|line| line.contains(why)),
            "{why}: {:#?}",
            upgradable.server.log()
        );
        echo(&mut client, b"served as before");
        upgradable.server.echo(b"and so is a new client");
        if script.is_none() {
            upgradable.replace(Some(""));
        }
    }
    assert_eq!((upgradable.pid(), upgradable.server.workers()), (Some(pid), workers));
    drop(client);
    upgradable.end();
}

#[test]
fn while_the_new_program_hangs_the_old_server_goes_on() {
    let mut upgradable = Upgradable::start(&["--workers", "2", "--grace", "5s"]);
    upgradable.replace(Some("#!/bin/sh\nexec sleep 100\n"));
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_log(&["SIGUSR2: the new server (pid "]);
    upgradable.server.echo(b"served all the same");
    upgradable.server.signal(Signal::SIGUSR2);
    upgradable.server.wait_for_log(&["SIGUSR2: ignored; an upgrade is under way"]);
    if rounds(false, true) {
        // 30 s, which is longer than a test waits otherwise.
        let start = Instant::now();
        let is_killed = |line: &String| line.contains("killed by SIGKILL: this one goes on");
        while !upgradable.server.log().iter().any(is_killed) {
            assert!(start.elapsed() < Duration::from_secs(60), "it is not killed");
            thread::sleep(Duration::from_millis(100));
        }
        upgradable.server.echo(b"still there");
        upgradable.end();
    } else {
        // The end of the old server is the new one's, too.
        assert_eq!(upgradable.server.stop(), 0);
        wait_until("no process is left", || upgradable.processes() == 0);
    }
}

/// What is left after a blow during an upgrade: a whole server, or nothing.
#[track_caller]
fn check_what_is_left(upgradable: &Upgradable, must_serve: bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let (number, pid) = (upgradable.processes(), upgradable.pid());
        let (code, stdout, stderr) = upgradable.status();
        // For an instant three processes may also be an old server that leaves, and two workers that
        // have lost the new one.
        let runs = code == 0 && stdout.contains("running for");
        if runs && number == 3 && pid.is_some_and(|pid| stdout.contains(&format!("(pid {pid})"))) {
            upgradable.server.echo(b"a server is there");
            return upgradable.end();
        }
        if number == 0 && !must_serve {
            assert_eq!(code, 1, "status takes a dead server for a living one: {stdout}");
            std::net::TcpListener::bind(upgradable.server.address).expect("the port is free");
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{number} processes, pid file {pid:?}, must serve: {must_serve}; {stdout}{stderr}{:#?}",
            upgradable.server.log()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Sends signals to the old and to the new server, each at some instant of an upgrade.
fn strike(delay: Duration, old: Option<Signal>, new: Option<Signal>, must_serve: bool) {
    let upgradable = Upgradable::start(&["--workers", "2"]);
    let pid = upgradable.server.pid;
    upgradable.server.signal(Signal::SIGUSR2);
    let start = Instant::now();
    while start.elapsed() < delay {
        std::hint::spin_loop();
    }
    // The new server is the child that has children of its own, or still the program's name.
    if let Some(signal) = new {
        let line = upgradable.server.wait_for_log(&["SIGUSR2: the new server (pid "]);
        let new = crate::common::number_following(&line, "the new server (pid ");
        let _ = kill(Pid::from_raw(new), signal);
    }
    if let Some(signal) = old {
        let _ = kill(pid, signal);
    }
    check_what_is_left(&upgradable, must_serve);
}

#[test]
fn a_new_server_that_is_killed_at_any_instant_leaves_a_whole_server_or_none() {
    let _alone = heavy();
    for step in 0..rounds(6, 20) {
        strike(Duration::from_millis(step * 40 / rounds(6, 20)), None, Some(Signal::SIGKILL), false);
    }
}

#[test]
fn an_old_server_that_is_killed_at_any_instant_leaves_a_whole_server_or_none() {
    let _alone = heavy();
    for step in 0..rounds(6, 20) {
        strike(Duration::from_millis(step * 40 / rounds(6, 20)), Some(Signal::SIGKILL), None, false);
    }
}

#[test]
fn both_told_term_in_the_midst_end_in_order() {
    let _alone = heavy();
    for step in 0..rounds(6, 20) {
        let term = Some(Signal::SIGTERM);
        strike(Duration::from_millis(step * 40 / rounds(6, 20)), term, term, false);
    }
}
