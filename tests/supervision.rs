//! The parent: what it starts, and what it does when a worker dies.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::common::{Server, connect, echo, heavy, noise, number_following, read_to_end, rounds, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn stdout_gets_one_line_with_address_pid_and_workers() {
    let server = Server::start(&["--workers", "3"]);
    assert_eq!(server.line, format!("listening on {} (pid {}, 3 workers)\n", server.address, server.pid));
    assert_ne!(server.address.port(), 0, "port 0 asks the kernel for a real one");
    assert_eq!(server.workers().len(), 3);
}

#[test]
fn the_parent_serves_no_client() {
    let server = Server::start(&["--workers", "2"]);
    let mut clients: Vec<_> = (0..3).map(|_| server.connect()).collect();
    clients[..2].iter_mut().for_each(|client| echo(client, b"served"));
    clients[2].set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert!(clients[2].read(&mut [0]).is_err(), "both workers are busy, and the third client was served");
    let parent = format!("parent {}: accepted", server.pid);
    assert!(!server.log().iter().any(|line| line.contains(&parent)));
}

#[test]
fn a_killed_worker_is_replaced_and_its_signal_logged() {
    let server = Server::start(&["--workers", "2"]);
    server.echo(b"one client, for the count");
    let accepted = server.wait_for_log(&["accepted"]);
    let worker = Pid::from_raw(number_following(&accepted, "(pid "));
    let slot = number_following(&accepted, "worker ");
    kill(worker, Signal::SIGKILL).unwrap();

    let death = server
        .wait_for_log(&[&format!("worker {slot} (pid {worker}) killed by SIGKILL after "), "1 connection"]);
    assert!(death.contains("parent"), "{death}");
    let replacement =
        server.wait_for_log(&[&format!("worker {slot} (pid "), &format!("replaces pid {worker}")]);
    let workers = server.wait_for_workers(2);
    assert!(!workers.contains(&worker));
    assert!(workers.contains(&Pid::from_raw(number_following(&replacement, "(pid "))));
    server.echo(b"all is well");
}

#[cfg(target_os = "linux")] // macOS has no real-time signals.
#[test]
fn a_worker_killed_by_an_unnamed_signal_is_replaced() {
    let mut server = Server::start(&["--workers", "1"]);
    let worker = server.workers()[0];
    let status = std::process::Command::new("bash").args(["-c", &format!("kill -40 {worker}")]).status();
    assert!(status.unwrap().success());
    server.wait_for_log(&[&format!("(pid {worker}) killed by signal 40 after")]);
    server.wait_for_log(&[&format!("replaces pid {worker}")]);
    server.echo(b"served by the next one");
    assert_eq!(server.stop(), 0);
}

#[test]
fn repeated_kills_never_make_the_parent_give_up() {
    let server = Server::start(&["--workers", "2"]);
    let mut killed = BTreeSet::new();
    while killed.len() < rounds(50, 200) {
        let lines = server.log();
        let born = lines.iter().filter(|line| line.contains("forked") || line.contains("replaces pid"));
        let born: BTreeSet<_> = born.map(|line| number_following(line, "(pid ")).collect();
        for pid in &born - &killed {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            killed.insert(pid);
        }
        thread::yield_now();
    }
    server.wait_for_workers(2);
    server.echo(b"still here");
}

#[test]
fn only_the_client_of_a_killed_worker_notices() {
    let server = Server::start(&["--workers", "2"]);
    let (mut unlucky, mut lucky) = (server.connect(), server.connect());
    echo(&mut unlucky, b"hello");
    echo(&mut lucky, b"hello");
    let port = unlucky.local_addr().unwrap().port();
    let accepted = server.wait_for_log(&["accepted", &format!("127.0.0.1:{port}")]);
    kill(Pid::from_raw(number_following(&accepted, "(pid ")), Signal::SIGKILL).unwrap();
    assert_eq!(unlucky.read(&mut [0]).unwrap(), 0);
    echo(&mut lucky, b"still served");
    server.wait_for_log(&["killed by SIGKILL", &format!(", its client 127.0.0.1:{port} is cut off")]);
    server.wait_for_workers(2);
    server.echo(b"and so is the next one");
}

#[test]
fn crashes_at_the_start_back_off_and_then_end() {
    let mut server = Server::start(&["--workers", "2"]);
    // A worker that gets SIGSEGV looks as one does that crashes by itself.
    let mut crashed = BTreeSet::new();
    let mut ended = None;
    wait_until("the server gives up", || {
        for line in
            server.log().iter().filter(|line| line.contains("forked") || line.contains("replaces pid"))
        {
            let pid = number_following(line, "(pid ");
            if crashed.insert(pid) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGSEGV);
            }
        }
        ended = (!server.has_processes_left()).then(|| server.wait_code());
        ended.is_some()
    });
    assert_eq!(ended, Some(4));
    server.wait_for_log(&["replaced in", "crashed at its start"]);
    let reason = server.wait_for_log(&["giving up", "crashing at their start"]);
    assert!(reason.contains("SIGSEGV"), "{reason}");
    assert!(crashed.len() <= 2 * 6, "{} forks: the back-off doesn't hold", crashed.len());
}

#[test]
fn term_to_a_worker_drains_and_replaces_it() {
    let server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let worker = server.workers()[0];
    kill(worker, Signal::SIGTERM).unwrap();
    echo(&mut client, b"it goes on until the line is quiet");
    assert!(read_to_end(&mut client).is_empty());
    server.wait_for_log(&[&format!("(pid {worker}) left with exit code 0")]);
    server.wait_for_log(&[&format!("replaces pid {worker}")]);
    server.echo(b"next");
}

#[test]
fn hup_replaces_all_workers_unnoticed_by_clients() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "3"]);
    let (address, done) = (server.address, Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let done = Arc::clone(&done);
            thread::spawn(move || {
                let mut served = 0;
                while !done.load(Ordering::Relaxed) {
                    echo(&mut connect(address), b"not one refused, not one reset");
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut old = server.wait_for_workers(3);
    for _ in 0..rounds(10, 100) {
        server.signal(Signal::SIGHUP);
        wait_until("all are replaced", || {
            let new = server.workers();
            new.len() == 3 && new.iter().all(|worker| !old.contains(worker))
        });
        old = server.workers();
    }
    done.store(true, Ordering::Relaxed);
    let served: u32 = clients.into_iter().map(|client| client.join().expect("a client noticed")).sum();
    println!("replacements of all workers: {served} connections, none refused, none reset");
}

#[test]
fn hup_stops_no_worker_before_its_replacement_is_ready() {
    let server = Server::start(&["--workers", "10"]);
    let old = server.wait_for_workers(10);
    server.signal(Signal::SIGHUP);
    let position = |what: &str| server.log().iter().position(|line| line.contains(what));
    for pid in old {
        server.wait_for_log(&[&format!("(pid {pid}) left with exit code 0")]);
        let ready = position(&format!("is ready, pid {pid} may leave"));
        let leaving = position(&format!("(pid {pid}): leaving after"));
        assert!(ready.is_some() && ready < leaving, "{:#?}", server.log());
    }
    server.wait_for_workers(10);
}

#[test]
fn ttin_and_ttou_change_the_number_of_workers() {
    let server = Server::start(&["--workers", "1"]);
    server.signal(Signal::SIGTTIN);
    server.wait_for_workers(2);
    server.signal(Signal::SIGTTOU);
    server.wait_for_workers(1);
    server.signal(Signal::SIGTTOU);
    server.wait_for_log(&["SIGTTOU", "the least"]);
    server.wait_for_workers(1);
    server.echo(b"still here");
}

#[test]
fn usr1_logs_the_table_and_winch_is_ignored() {
    let server = Server::start(&["--workers", "2"]);
    let mut client = server.connect();
    echo(&mut client, b"12345");
    server.signal(Signal::SIGWINCH);
    let find = |what: &str| server.log().into_iter().find(|line| line.contains(what));
    wait_until("a table shows the worker back in recv", || {
        server.signal(Signal::SIGUSR1);
        find(" reading ").is_some()
    });
    let row = find(" reading ").expect("it was there");
    let words: Vec<_> = row.split_whitespace().rev().collect();
    assert_eq!(words[..4], ["0", "1", "5", "1"], "restarts, private counter, bytes, connections");
    server.wait_for_log(&["SLOT", "PID", "STATE", "SERVED", "BYTES", "PRIVATE", "RESTARTS"]);
    server.wait_for_log(&[" idle "]);
}

#[test]
fn a_worker_leaves_at_its_limit_although_other_threads_of_it_wait_in_accept() {
    let options = ["--model", "thread", "--workers", "1", "--clients", "4", "--max-connections", "1"];
    let server = Server::start(&[&options[..], &["--explain"]].concat());
    let in_accept = |line: &&String| line.contains("asleep until a client connects");
    wait_until("all threads wait in accept", || server.log().iter().filter(in_accept).count() == 4);
    server.echo(b"the only one of this worker");
    server.wait_for_log(&["left with exit code 0", "and 1 connection"]);
    server.echo(b"its replacement serves");
}

#[test]
fn workers_leave_after_max_connections_and_are_replaced() {
    let server = Server::start(&["--workers", "2", "--max-connections", "10"]);
    let first = server.wait_for_workers(2);
    let has_left = |worker| server.log().iter().any(|line| line.contains(&format!("(pid {worker}) left")));
    wait_until("both have served their number", || {
        server.echo(b"not one is lost");
        first.iter().all(has_left)
    });
    for worker in first {
        let line = server.wait_for_log(&[&format!("(pid {worker}) left with exit code 0")]);
        let served = number_following(&line, "and ");
        assert!((10..=11).contains(&served), "{line}");
        server.wait_for_log(&[&format!("replaces pid {worker}")]);
    }
}

/// Starts the server by a script for bash, checks respawn and shutdown.
#[track_caller]
fn works_when_started_by(script: &str) {
    let mut shell = std::process::Command::new("bash");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_prefork-echo")]);
    let mut server = Server::spawn(shell);
    let worker = server.workers()[0];
    kill(worker, Signal::SIGKILL).unwrap();
    server.wait_for_log(&[&format!("replaces pid {worker}")]);
    assert_eq!(server.stop(), 0);
}

#[test]
fn signals_that_were_ignored_before_the_start_work() {
    works_when_started_by("trap '' CHLD INT TERM; exec \"$0\" --bind 127.0.0.1:0");
}

#[cfg(target_os = "linux")] // macOS has no command that blocks signals.
#[test]
fn signals_that_were_blocked_before_the_start_work() {
    works_when_started_by("exec env --block-signal=CHLD,TERM,ALRM,CONT \"$0\" --bind 127.0.0.1:0");
}

#[test]
fn a_worker_interrupted_without_cause_goes_on() {
    let server = Server::start(&["--workers", "1"]);
    let worker = server.workers()[0];
    for signal in
        [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGALRM, Signal::SIGCONT]
    {
        kill(worker, signal).unwrap();
    }
    let mut client = server.connect();
    for _ in 0..50 {
        kill(worker, Signal::SIGCONT).unwrap();
        echo(&mut client, b"interrupted, not broken");
    }
    // In the midst of a send, too, which then has taken only a part.
    let (mut sender, message) = (client.try_clone().unwrap(), noise(4_000_000));
    let sent = message.clone();
    let sending = thread::spawn(move || sender.write_all(&sent).unwrap());
    let mut answer = vec![0; message.len()];
    for part in answer.chunks_mut(20_000) {
        kill(worker, Signal::SIGCONT).unwrap();
        client.read_exact(part).unwrap();
    }
    sending.join().unwrap();
    assert!(answer == message, "what came back differs");
    assert_eq!(server.workers(), [worker]);
}

#[test]
fn a_thousand_workers_start_serve_and_leave() {
    let _alone = heavy();
    let mut server = Server::start(&["-q", "--workers", "1000"]);
    let mut clients: Vec<_> = (0..200).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| echo(client, b"each has a worker"));
    assert_eq!(server.workers().len(), 1000);
    drop(clients);
    assert_eq!(server.stop(), 0);
    assert!(!server.has_processes_left());
}
