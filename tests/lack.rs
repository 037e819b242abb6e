//! The system runs out of something: the server waits, says so, and recovers.
//!
//! Linux only: prlimit(1) changes the limits of a process that runs.
#![cfg(target_os = "linux")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::common::{Server, heavy, number_following, unprivileged_binary, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};

/// Sets a soft limit of a running process, as the user whose process it is.
fn limit(pid: Pid, what: &str) {
    let owner = fs::metadata(format!("/proc/{pid}")).unwrap();
    let mut prlimit = Command::new("prlimit");
    prlimit.args(["--pid", &pid.to_string(), what]);
    if owner.uid() != geteuid().as_raw() {
        prlimit.uid(owner.uid()).gid(owner.gid());
    }
    assert!(prlimit.status().expect("util-linux is everywhere on Linux").success());
}

/// Processor time of a process so far, in hundredths of a second.
fn cpu(pid: Pid) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn descriptors(pid: Pid) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn workers_hold_no_descriptors_of_the_parent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pid");
    let server = Server::start(&["--workers", "2", "--pid-file", path.to_str().unwrap()]);
    server.echo(b"hello");
    for worker in server.workers() {
        let own = "stdin, stdout, stderr and the listening socket are all that it has";
        wait_until(own, || descriptors(worker) == 4);
    }
}

#[test]
fn a_replacement_that_cannot_start_leaves_the_old_worker() {
    let server = Server::start(&["--workers", "1"]);
    server.echo(b"hello");
    let old = server.workers()[0];
    // No room for an heir's buffer; the parent needs no more than it has.
    limit(server.pid, "--as=4096:");
    server.signal(Signal::SIGHUP);
    server.wait_for_log(&["SIGHUP: the new worker crashed, so the old ones stay"]);
    let look = server.status();
    assert_eq!(look["workers"].as_array().unwrap().len(), 1, "{look}");
    let worker = &look["workers"][0];
    assert_eq!((worker["pid"].as_i64(), &worker["connections"]), (Some(old.as_raw().into()), &1.into()));
}

#[test]
fn a_full_disk_costs_only_the_scoreboard_file() {
    // A file system of its own, which takes rights that few users have.
    let may_mount = Command::new("unshare").args(["-m", "true"]).stderr(Stdio::null()).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c"]).arg(
        "mount -t tmpfs -o size=64k none \"$1\" && exec \"$0\" --bind 127.0.0.1:0 --scoreboard \"$1\"/board",
    );
    let mut server = Server::spawn({
        command.arg(env!("CARGO_BIN_EXE_prefork-echo")).arg(directory.path());
        command
    });
    server.wait_for_log(&["no file for the scoreboard", "no space left on device"]);
    server.echo(b"hello");
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(&["served: 1 connection, 5 bytes"]);
    assert_eq!(server.stop(), 0);
}

/// A worker that can open nothing more. It holds a descriptor for the next
/// client already, so it has to call accept once more to notice.
fn without_descriptors() -> (Server, Pid) {
    let server = Server::start(&["--workers", "1"]);
    let worker = server.workers()[0];
    limit(worker, "--nofile=1:");
    kill(worker, Signal::SIGCONT).unwrap();
    let line = server.wait_for_log(&["cannot accept: too many open files", "ulimit -n"]);
    assert!(line.contains(&format!("(pid {worker})")), "{line}");
    (server, worker)
}

#[test]
fn without_descriptors_clients_wait_and_are_served_later() {
    let _alone = heavy();
    let (mut server, worker) = without_descriptors();
    let mut client = server.connect();
    client.write_all(b"hello").unwrap();

    // No busy loop: a second of it would be a second of processor time.
    let before = cpu(worker);
    thread::sleep(Duration::from_secs(1)); // The time that is looked at.
    let used = cpu(worker) - before;
    assert!(used < 30, "{used} hundredths of a second");

    limit(worker, "--nofile=1000:");
    let mut answer = [0; 5];
    client.read_exact(&mut answer).unwrap();
    server.wait_for_log(&["accepting again, after"]);
    drop(client);
    assert_eq!(server.workers(), [worker], "it survives");
    assert_eq!(server.stop(), 0);
}

#[test]
fn shutdown_serves_a_queue_longer_than_the_descriptor_limit() {
    let mut command = Command::new("prlimit");
    command.args([
        "--nofile=40:",
        env!("CARGO_BIN_EXE_prefork-echo"),
        "--bind",
        "127.0.0.1:0",
        "--workers",
        "1",
    ]);
    let mut server = Server::spawn(command);
    let mut busy = server.connect();
    crate::common::echo(&mut busy, b"the only worker is mine");
    let mut waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
    for client in &mut waiting {
        client.write_all(b"hello").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
    }
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    drop(busy);
    waiting.iter_mut().for_each(|client| assert_eq!(crate::common::read_to_end(client), b"hello"));
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn shutdown_retries_a_queue_that_cannot_be_accepted() {
    let mut server = Server::start(&["--workers", "1"]);
    let worker = server.workers()[0];
    let mut busy = server.connect();
    crate::common::echo(&mut busy, b"the only worker is mine");
    let mut waiting: Vec<_> = (0..20).map(|_| server.connect()).collect();
    waiting.iter_mut().for_each(|client| client.write_all(b"hello").unwrap());
    limit(worker, "--nofile=4:");
    // The parent raises its soft limit as far as it may: room for some of them.
    limit(server.pid, "--nofile=4:12");
    server.signal(Signal::SIGTERM);
    let line = server.wait_for_log(&["forked to drain the accept queue"]);
    let drainer = number_following(&line, "worker 0 (pid ");
    server.wait_for_log(&[&format!("(pid {drainer}): cannot accept: too many open files")]);
    drop(busy);
    for client in &mut waiting {
        let mut answer = [0; 5];
        client.read_exact(&mut answer).expect("served, and not reset");
        assert_eq!(&answer, b"hello");
    }
    drop(waiting);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn shutdown_ends_even_if_fork_fails() {
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged_binary(directory.path());
    command.args(["--bind", "127.0.0.1:0", "--workers", "1"]);
    let mut server = Server::spawn(command);
    let mut busy = server.connect();
    crate::common::echo(&mut busy, b"hello");
    let mut waiting = server.connect();
    waiting.write_all(b"served after the signal, so that a last sweep is wanted").unwrap();
    limit(server.pid, "--nproc=1:");
    server.signal(Signal::SIGTERM);
    server.wait_for_log(&["shutting down"]);
    drop(busy);
    server.wait_for_log(&["cannot fork worker 0"]);
    // The queue had been served before; no connection was cut.
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn term_ends_a_worker_that_waits_for_descriptors() {
    let (mut server, _) = without_descriptors();
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_failed_fork_is_retried_until_it_works() {
    // Limits on processes don't hold for root.
    let directory = tempfile::tempdir().unwrap();
    let mut command = unprivileged_binary(directory.path());
    command.args(["--bind", "127.0.0.1:0", "--workers", "2"]);
    let mut server = Server::spawn(command);
    let workers = server.wait_for_workers(2);
    limit(server.pid, "--nproc=1:");
    kill(workers[0], Signal::SIGKILL).unwrap();
    server.wait_for_log(&["cannot fork worker", "resource temporarily unavailable", "ulimit -u"]);
    server.echo(b"the other one serves");

    let before = cpu(server.pid);
    thread::sleep(Duration::from_secs(1)); // The time that is looked at.
    let used = cpu(server.pid) - before;
    assert!(used < 30, "{used} hundredths of a second");
    // HUP needs a fork as well, and waits for it.
    server.signal(Signal::SIGHUP);
    server.wait_for_log(&["SIGHUP"]);

    limit(server.pid, "--nproc=4096:");
    server.wait_for_log(&["fork works again"]);
    server.wait_for_log(&[&format!("replaces pid {}", workers[0])]);
    server.wait_for_log(&[&format!("(pid {}) left with exit code 0", workers[1])]);
    server.wait_for_workers(2);
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_server_that_cannot_fork_does_not_start() {
    let directory = tempfile::tempdir().unwrap();
    let command = unprivileged_binary(directory.path());
    let mut limited = Command::new("prlimit");
    limited.arg("--nproc=0:0").arg(command.get_program()).args(["--bind", "127.0.0.1:0"]);
    if geteuid().is_root() {
        limited.uid(65534);
    }
    let (status, message) = crate::common::run(limited);
    assert_eq!(status, 1, "{message}");
    assert!(
        message.contains("prefork-echo: cannot fork any worker; raise the limit on processes (ulimit -u)"),
        "{message}"
    );
}
