//! Blows at any instant, again and again. Each test prints what it has measured:
//! `cargo test faults -- --nocapture`.
//!
//! The limits hold on a slow machine, too; what a quick one measures is in docs/measurements.md.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{Random, SECOND_SIGNAL, Server, heavy, noise, processes, rounds, wait_until};
use nix::sys::signal::{Signal, kill};
use socket2::SockRef;

const SECOND: Duration = Duration::from_secs(1);

/// Reads to the end, whatever it is: the blows that these clients share with their
/// workers may well reset them.
fn read_to_the_end(client: &mut TcpStream) {
    let mut buffer = vec![0; 65_536];
    while client.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// What a client does before the blow.
#[derive(Debug, Clone, Copy)]
enum Client {
    None,
    /// Its worker waits in recv.
    HasBeenServed,
    /// Its worker is somewhere on the way.
    HasJustSent,
    /// Its worker is in accept, or just out of it.
    HasJustConnected,
    /// Its worker is back in accept, or nearly.
    HasJustLeft,
    /// Its worker waits in send.
    NeverReads,
    /// Its worker is dead, or its replacement starts.
    IsServedByTheDead,
}

/// One server with clients of all kinds, and TERM; how long after the last client's
/// end it has left.
fn term_at_some_instant(dice: &mut Random) -> Duration {
    let mut server = Server::start(&["-q", "--workers", "4"]);
    let kinds: Vec<_> = (0..4)
        .map(|_| match dice.below(14) {
            0..=3 => Client::None,
            4..=5 => Client::HasBeenServed,
            6..=7 => Client::HasJustSent,
            8..=9 => Client::HasJustConnected,
            10..=11 => Client::HasJustLeft,
            12 => Client::NeverReads,
            _ => Client::IsServedByTheDead,
        })
        .collect();
    let mut clients = Vec::new();
    for kind in &kinds {
        match kind {
            Client::None => {}
            Client::NeverReads => clients.push(server.connect_without_reading()),
            Client::IsServedByTheDead => {
                let worker = server.workers().first().copied();
                worker.into_iter().for_each(|worker| kill(worker, Signal::SIGKILL).unwrap());
            }
            _ => {
                let mut client = server.connect();
                match kind {
                    // Unless it falls to a worker that is being killed.
                    Client::HasBeenServed => {
                        let _ = client.write_all(b"hello").and_then(|()| client.read(&mut [0; 5]));
                    }
                    Client::HasJustSent => client.write_all(&noise(20_000)).unwrap(),
                    _ => {}
                }
                if !matches!(kind, Client::HasJustLeft) {
                    clients.push(client);
                }
            }
        }
    }
    let instant = Duration::from_micros(dice.below(3_000));
    let start = Instant::now();
    while start.elapsed() < instant {
        std::hint::spin_loop();
    }
    server.signal(Signal::SIGTERM);
    for mut client in clients {
        // A client that hasn't read reads now; of the others most go by themselves.
        if dice.below(4) == 0 || kinds.iter().any(|kind| matches!(kind, Client::NeverReads)) {
            read_to_the_end(&mut client);
        }
    }
    let last_end = Instant::now();
    assert_eq!(server.wait_code(), 0, "{kinds:?}, TERM after {instant:?}");
    let took = last_end.elapsed();
    assert!(took < SECOND, "{took:?} after the last client's end: {kinds:?}, TERM after {instant:?}");
    assert!(!server.has_processes_left(), "{kinds:?}, TERM after {instant:?}");
    took
}

#[test]
fn term_at_any_instant_ends_the_server_within_a_second() {
    let _alone = heavy();
    let threads: Vec<_> = (0..3)
        .map(|seed| {
            thread::spawn(move || {
                let mut dice = Random::new(seed);
                (0..rounds(5, 100)).map(|_| term_at_some_instant(&mut dice)).collect::<Vec<_>>()
            })
        })
        .collect();
    let mut took: Vec<_> = threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect();
    took.sort();
    println!(
        "from the last client's end to the exit, {} times: median {:?}, most {:?}",
        took.len(),
        took[took.len() / 2],
        took[took.len() - 1]
    );
}

#[test]
fn workers_killed_while_the_parent_is_stopped_are_replaced() {
    let _alone = heavy();
    let mut most = Duration::ZERO;
    for _ in 0..rounds(2, 20) {
        let mut server = Server::start(&["-q", "--workers", "8"]);
        let old = server.wait_for_workers(8);
        server.signal(Signal::SIGSTOP);
        old.iter().for_each(|worker| kill(*worker, Signal::SIGKILL).unwrap());
        let dead = || {
            processes().iter().filter(|process| process.parent == server.pid && process.state == 'Z').count()
        };
        wait_until("all are zombies", || dead() == 8);
        let start = Instant::now();
        server.signal(Signal::SIGCONT);
        wait_until("all are replaced, and no zombie is left", || server.workers().len() == 8 && dead() == 0);
        most = most.max(start.elapsed());
        server.echo(b"as before");
        assert_eq!(server.stop(), 0);
    }
    println!("from SIGCONT until 8 of 8 workers were replaced: most {most:?}");
    assert!(most < SECOND, "it took {most:?}");
}

#[test]
fn a_second_ctrl_c_ends_all_processes_at_once() {
    let _alone = heavy();
    let mut most = Duration::ZERO;
    for round in 0..rounds(2, 20) {
        let mut server = Server::start(&["--workers", "4", "--grace", "1h"]);
        let _greedy = (round % 2 == 0).then(|| server.connect_without_reading());
        server.signal_group(Signal::SIGINT);
        server.wait_for_log(&["SIGINT: shutting down"]);
        thread::sleep(SECOND_SIGNAL);
        let start = Instant::now();
        // Without a client it may be gone by now.
        server.signal_group_if_any(Signal::SIGINT);
        let code = server.wait_code();
        most = most.max(start.elapsed());
        assert!(code == 0 || code == 3 && round % 2 == 0, "exit status {code}");
        assert!(!server.has_processes_left());
    }
    println!("from the second Ctrl-C to the exit: most {most:?}");
    assert!(most < SECOND, "it took {most:?}");
}

/// As many bad clients as there are workers, then an honest one: how long it waits.
#[track_caller]
fn wait_behind(name: &str, limit: Duration, misbehave: impl Fn(&Server) -> Option<TcpStream>) {
    let mut server = Server::start(&["-q", "--workers", "4", "--idle-timeout", "2s"]);
    let bad: Vec<_> = (0..4).map(|_| misbehave(&server)).collect();
    let start = Instant::now();
    server.echo(b"I am honest");
    let waited = start.elapsed();
    println!("behind four clients that {name}, with --idle-timeout 2s: served after {waited:?}");
    assert!(waited < limit, "behind clients that {name}: {waited:?}");
    drop(bad);
    assert_eq!(server.stop(), 0);
}

#[test]
fn clients_that_never_send_delay_others_by_the_idle_timeout() {
    let _alone = heavy();
    wait_behind("never send", 3 * SECOND, |server| Some(server.connect()));
}

#[test]
fn clients_that_never_read_delay_others_by_the_idle_timeout() {
    let _alone = heavy();
    wait_behind("never read", 3 * SECOND, |server| Some(server.connect_without_reading()));
    wait_behind("read nothing of what the server's side holds", 3 * SECOND, |server| {
        let mut client = server.connect();
        SockRef::from(&client).set_recv_buffer_size(4096).unwrap();
        client.write_all(&noise(300_000)).unwrap();
        Some(client)
    });
    wait_behind("close their side, and never read", 3 * SECOND, |server| {
        let mut client = server.connect();
        client.set_write_timeout(Some(Duration::from_millis(50))).unwrap();
        while client.write(&noise(65_536)).is_ok() {}
        client.shutdown(Shutdown::Write).unwrap();
        Some(client)
    });
}

#[test]
fn clients_that_reset_or_close_at_once_delay_no_others() {
    let _alone = heavy();
    wait_behind("reset at once", SECOND, |server| {
        let mut client = server.connect();
        SockRef::from(&client).set_linger(Some(Duration::ZERO)).unwrap();
        let _ = client.write_all(&noise(1000));
        None
    });
    wait_behind("connect and close at once", SECOND, |server| {
        server.connect();
        None
    });
}

/// Gone without a word, as when a cable is cut: a socket under repair is closed in
/// silence, as only root can make it.
#[cfg(target_os = "linux")]
#[test]
fn vanished_clients_delay_others_by_the_idle_timeout() {
    if nix::unistd::geteuid().is_root() {
        wait_behind("vanish without a word", 3 * SECOND, |server| {
            let client = server.connect();
            nix::sys::socket::setsockopt(&client, nix::sys::socket::sockopt::TcpRepair, &1).unwrap();
            None
        });
    }
}

/// Resident memory of a process in kB, and its open descriptors where /proc tells.
fn size_of(pid: nix::unistd::Pid) -> (i64, usize) {
    let output =
        std::process::Command::new("ps").args(["-o", "rss=", "-p", &pid.to_string()]).output().unwrap();
    let rss = String::from_utf8(output.stdout).unwrap().trim().parse().expect("ps knows it");
    (rss, std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count))
}

#[test]
fn connections_and_respawns_leak_no_memory_or_descriptors() {
    let _alone = heavy();
    let mut server = Server::start(&["--workers", "4"]);
    let load = |connections: usize| (0..connections).for_each(|_| server.echo(b"hello"));
    let idle = |look: serde_json::Value| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    };
    // Of the parent, and of all workers together.
    let sizes = || {
        wait_until("all are idle", || idle(server.status()));
        let workers = server.workers().into_iter().map(size_of);
        (size_of(server.pid), workers.fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1)))
    };
    // In the beginning each touches memory that it has never used before.
    load(2_000);
    let before = sizes();
    load(rounds(1_000, 10_000));
    let loaded = sizes();
    for _ in 0..rounds(10, 100) {
        let worker = server.workers()[0];
        kill(worker, Signal::SIGKILL).unwrap();
        wait_until("it is replaced", || server.workers().len() == 4 && !server.workers().contains(&worker));
    }
    load(2_000);
    let after = sizes();
    println!("memory in kB and descriptors of the parent, of 4 workers: {before:?}");
    println!("after the connections: {loaded:?}; and after the respawns: {after:?}");
    for (before, later) in
        [(before.0, loaded.0), (before.1, loaded.1), (before.0, after.0), (before.1, after.1)]
    {
        assert_eq!(before.1, later.1, "descriptors");
        assert!(later.0 - before.0 < 1024, "memory has grown by {} kB", later.0 - before.0);
    }
    assert_eq!(server.stop(), 0);
}

#[test]
fn a_client_that_reads_after_term_loses_no_byte() {
    for round in 0..rounds(2, 20) {
        let mut server = Server::start(&["--workers", "2"]);
        // The larger ones don't fit into the buffers on the way: the worker gets stuck in send.
        let large = round % 2 == 0;
        let (mut client, message) = (server.connect(), noise(if large { 16_000_000 } else { 4_000_000 }));
        let (mut sender, sent) = (client.try_clone().unwrap(), message.clone());
        let sending = thread::spawn(move || sender.write_all(&sent));
        if large {
            wait_until("the worker waits in send", || {
                server.status()["workers"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .any(|worker| worker["state"] == "writing")
            });
        }
        server.wait_for_log(&["accepted"]);
        server.signal(Signal::SIGTERM);
        server.wait_for_log(&["shutting down"]);
        let mut answer = vec![0; message.len()];
        client.read_exact(&mut answer).expect("every byte");
        assert!(answer == message, "what came back differs");
        sending.join().unwrap().unwrap();
        assert!(crate::common::read_to_end(&mut client).is_empty());
        drop(client);
        assert_eq!(server.wait_code(), 0);
    }
}
