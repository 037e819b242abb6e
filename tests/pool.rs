//! A pool that grows while connections wait, and shrinks when its workers are idle.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use prefork_echo::scoreboard::{State, Writer};
use serde_json::{Value, json};

use crate::common::models::{ALL, connect_clients, exchange, in_each, number, start_workers, workers};
use crate::common::{
    PATIENCE, Random, Server, SetOnDrop, command, connect, echo, heavy, processes, read_to_end, rounds,
    wait_until,
};

/// Connects so many clients at once, each of which sends a message before any reads. Returns
/// them, and the time until the last was served.
#[track_caller]
fn burst(server: &Server, clients: usize) -> (Vec<TcpStream>, Duration) {
    let start = Instant::now();
    let mut streams: Vec<_> = (0..clients).map(|_| server.connect()).collect();
    streams.iter_mut().for_each(|stream| stream.write_all(b"hello").unwrap());
    for stream in &mut streams {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
    }
    (streams, start.elapsed())
}

#[track_caller]
fn wait_for_size(server: &Server, size: u64) -> Value {
    server.wait_for_status(&format!("there are {size} workers"), |look| {
        look["pool"]["now"] == size && workers(look).len() as u64 == size
    })
}

/// How often a process has gone to sleep (proc(5)). It was woken as often.
#[cfg(target_os = "linux")]
fn sleeps(process: Pid) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:")).unwrap();
    line.trim().parse().unwrap()
}

#[test]
fn it_grows_by_as_many_workers_as_wait_and_comes_back() {
    in_each(&ALL, |model| {
        let options = ["--max-workers", "6", "--spare-for", "1s"];
        let server = start_workers(model, 2, 1, &options);
        let oldest: BTreeSet<_> = server.workers().into_iter().collect();
        assert_eq!(server.status()["pool"], json!({"min": 2, "max": 6, "now": 2}));
        let (clients, _) = burst(&server, 6);
        let look = wait_for_size(&server, 6);
        assert_eq!(look["pool"], json!({"min": 2, "max": 6, "now": 6}));
        assert_eq!(look["totals"]["restarts"], 0, "a worker more replaces none");
        server.wait_for_log(&["parent", "and all 2 workers are busy: ", "more worker"]);
        let address = server.address.to_string();
        let (_, table, _) = command(&["status", &address]);
        assert!(table.contains("pool: 6 workers now, 2 to 6 as clients need them"), "{table}");
        let (_, page, _) = command(&["top", &address, "--once"]);
        assert!(page.contains(" forked these 6; as needed 2 to 6"), "{page}");
        drop(clients);
        wait_for_size(&server, 2);
        assert_eq!(server.workers().into_iter().collect::<BTreeSet<_>>(), oldest, "the youngest leave first");
        server.wait_for_log(&["was idle for 1s, and is not needed any more"]);
    });
}

#[test]
fn it_never_grows_beyond_its_most() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 1, 1, &["--max-workers", "3"]);
        let (clients, _) = burst(&server, 3);
        let mut fourth = server.connect();
        fourth.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        fourth.write_all(b"x").unwrap();
        assert!(fourth.read(&mut [0]).is_err(), "no worker was free");
        assert_eq!(server.workers().len(), 3);
        drop(clients);
        fourth.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = [0];
        fourth.read_exact(&mut answer).unwrap();
    });
}

#[test]
fn a_worker_is_full_when_it_has_its_clients() {
    for model in ["thread", "multiplex"] {
        let server = start_workers(model, 1, 4, &["--max-workers", "5"]);
        let (clients, _) = burst(&server, 4);
        assert_eq!(server.status()["pool"]["now"], 1, "the first worker has room for all");
        let (_more, _) = burst(&server, 8);
        wait_for_size(&server, 3);
        drop(clients);
    }
}

#[test]
fn sixty_clients_at_once_are_soon_served_by_one_worker_and_many_more() {
    let _alone = heavy();
    let server = Server::start(&["--workers", "1", "--max-workers", "64", "-q"]);
    let (_clients, time) = burst(&server, 60);
    // Half a second where the machine does nothing else.
    assert!(time < Duration::from_secs(5), "{time:?}");
    wait_for_size(&server, 60);
}

#[cfg(target_os = "linux")]
#[test]
fn the_parent_is_not_woken_for_a_connection() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        // Some to spare: on a busy machine a worker closes late, and the next client is there.
        let server = start_workers(model, 8, 1, &["--max-workers", "10"]);
        server.wait_for_idle_workers(8);
        let before = sleeps(server.pid);
        (0..200).for_each(|_| server.echo(b"a worker is idle"));
        let woken = sleeps(server.pid) - before;
        assert!(woken <= 20, "while a worker was idle, the parent was woken {woken} times");

        let (clients, _) = burst(&server, 10);
        let waiting: Vec<_> = (0..100).map(|_| server.connect()).collect();
        wait_for_size(&server, 10);
        let before = sleeps(server.pid);
        // All are busy, and there may be no more: each of these gets the next free worker.
        drop(clients);
        for mut client in waiting {
            echo(&mut client, b"one that has waited");
        }
        let woken = sleeps(server.pid) - before;
        assert!(woken <= 20, "while there were as many as may be, the parent was woken {woken} times");
    });
}

#[cfg(target_os = "linux")]
#[test]
fn at_its_least_nothing_ticks() {
    let server = Server::start(&["--workers", "2", "--max-workers", "6", "--spare-for", "100ms"]);
    drop(burst(&server, 4));
    wait_for_size(&server, 2);
    wait_until("the parent sleeps", || {
        let before = sleeps(server.pid);
        thread::sleep(Duration::from_secs(1)); // Ten times as long as a spare worker stays.
        sleeps(server.pid) == before
    });
}

#[test]
fn ttin_and_ttou_move_the_least() {
    let server = Server::start(&["--workers", "2", "--max-workers", "3", "--spare-for", "200ms"]);
    let limits = |least: u64, most: u64, now: u64| {
        let expected = json!({"min": least, "max": most, "now": now});
        server.wait_for_status(&format!("the pool is {expected}"), |look| look["pool"] == expected);
    };
    server.signal(Signal::SIGTTIN);
    limits(3, 3, 3);
    server.wait_for_log(&["SIGTTIN: 3 to 3 workers from now on"]);
    server.signal(Signal::SIGTTIN);
    limits(4, 4, 4);
    server.signal(Signal::SIGTTOU);
    limits(3, 3, 3);
    server.signal(Signal::SIGTTOU);
    limits(2, 3, 2);
    let (clients, _) = burst(&server, 3);
    limits(2, 3, 3);
    server.signal(Signal::SIGTTOU);
    limits(1, 3, 3);
    drop(clients);
    limits(1, 3, 1);
    server.signal(Signal::SIGTTOU);
    server.wait_for_log(&["SIGTTOU: one worker is the least"]);
}

#[test]
fn a_client_that_comes_at_the_last_moment_is_served_to_its_end() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 1, 1, &["--max-workers", "2", "--spare-for", "1s"]);
        let (mut clients, _) = burst(&server, 2);
        wait_for_size(&server, 2);
        server.wait_for_sleeping_threads();
        // To the parent the youngest worker looks idle, as if it had not yet shown its client.
        let path = format!("{}/prefork-echo/{}.scoreboard", env!("CARGO_TARGET_TMPDIR"), server.address);
        let file = File::options().read(true).write(true).open(path).unwrap();
        let scoreboard = Writer::map(Some(&file)).unwrap();
        let row = scoreboard.in_place(1).unwrap();
        scoreboard.row_writer(row).set_clients(0, None, None);
        scoreboard.row_writer(row).set_state(State::Idle);
        server.wait_for_log(&["worker 1", "was idle for 1s, and is not needed any more"]);
        // Longer than a worker that was told to stop waits for a quiet client.
        thread::sleep(Duration::from_millis(700));
        clients.iter_mut().for_each(|client| echo(client, b"served on"));
        assert_eq!(server.status()["pool"]["now"], 1);
        assert_eq!(server.workers().len(), 2);
        drop(clients);
        server.wait_for_workers(1);
    });
}

#[test]
fn a_killed_worker_above_the_least_is_replaced_and_leaves_later() {
    let server = Server::start(&["--workers", "1", "--max-workers", "3", "--spare-for", "500ms"]);
    let (clients, _) = burst(&server, 3);
    let look = wait_for_size(&server, 3);
    for worker in &workers(&look)[1..] {
        kill(Pid::from_raw(number(&worker["pid"]) as i32), Signal::SIGKILL).unwrap();
    }
    server.wait_for_status("both are replaced", |look| look["totals"]["restarts"] == 2);
    drop(clients);
    wait_for_size(&server, 1);
}

#[test]
fn processes_that_leave_count_up_to_the_most() {
    let server = Server::start(&["--workers", "2", "--max-workers", "4"]);
    let mut staying = connect_clients(&server, 2);
    server.signal(Signal::SIGHUP);
    // Their workers are replaced, and finish them for as long as they are not quiet.
    wait_until("both are leaving", || {
        exchange(&mut staying, 1);
        let look = server.status();
        look["pool"]["now"] == 2 && workers(&look).len() == 4
    });
    let mut clients: Vec<_> = (0..4).map(|_| server.connect()).collect();
    clients[..2].iter_mut().for_each(|client| echo(client, b"the replacements serve two"));
    exchange(&mut staying, 20);
    assert_eq!(server.workers().len(), 4, "more than the most");
    drop(staying);
    clients.iter_mut().for_each(|client| echo(client, b"then there is room for two more"));
    wait_for_size(&server, 4);
}

#[test]
fn workers_that_retire_count_up_to_the_most() {
    for model in ["thread", "multiplex"] {
        // Two connections each, and then the worker only keeps its clients.
        let server = start_workers(model, 1, 2, &["--max-workers", "3", "--max-connections", "2"]);
        let clients = server.connect_served(6);
        let mut waiting = server.connect();
        waiting.write_all(b"x").unwrap();
        waiting.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(waiting.read(&mut [0]).is_err(), "a fourth worker has served it");
        assert_eq!(server.workers().len(), 3);
        drop(clients);
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        waiting.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_stopped_worker_has_no_room() {
    in_each(&ALL, |model| {
        let server = start_workers(model, 2, 1, &["--max-workers", "5", "--spare-for", "1s"]);
        server.wait_for_idle_workers(2);
        let stopped = server.workers()[0];
        kill(stopped, Signal::SIGSTOP).unwrap();
        server.wait_for_status("one is stopped", |_| {
            processes().iter().any(|process| process.pid == stopped && process.state == 'T')
        });
        let (clients, _) = burst(&server, 4);
        wait_for_size(&server, 5);
        kill(stopped, Signal::SIGCONT).unwrap();
        drop(clients);
        wait_for_size(&server, 2);
    });
}

#[test]
fn a_growing_pool_shuts_down_in_order() {
    in_each(&ALL, |model| {
        let mut server = start_workers(model, 1, 1, &["--max-workers", "20"]);
        let (mut clients, _) = burst(&server, 10);
        let waiting = server.connect();
        server.signal(Signal::SIGTERM);
        for client in &mut clients {
            assert_eq!(read_to_end(client), b"");
        }
        drop(waiting);
        assert_eq!(server.wait_code(), 0);
    });
}

#[test]
fn the_limits_must_fit() {
    for (arguments, why) in [
        (["--workers", "4", "--max-workers", "3"], "--max-workers 3 is fewer than --workers 4"),
        (["--max-workers", "5000", "--workers", "4"], "a number from 1 to 4096"),
        (["--spare-for", "1ms", "--workers", "4"], "shorter than 100ms"),
    ] {
        let (code, _, stderr) = command(&arguments);
        assert!(code == 2 && stderr.contains(why), "{code}: {stderr}");
    }
}

/// Connections, kills, HUPs and a moving least, all at once.
#[test]
fn in_a_storm_it_stays_within_its_limits_and_comes_back() {
    let _alone = heavy();
    const MOST: usize = 8;
    let options = ["--workers", "2", "--max-workers", "8", "--spare-for", "300ms", "--grace", "20s", "-q"];
    let mut server = Server::start(&options);
    let (served, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let _end = SetOnDrop(&stop);
        let is_over = || stop.load(Ordering::Relaxed);
        let (served, address) = (&served, server.address);
        for number in 0..6 {
            scope.spawn(move || {
                let mut random = Random::new(number);
                while !is_over() {
                    let mut client = connect(address);
                    // A killed worker cuts it.
                    let is_served =
                        client.write_all(b"storm").is_ok() && client.read_exact(&mut [0; 5]).is_ok();
                    served.fetch_add(is_served.into(), Ordering::Relaxed);
                    thread::sleep(Duration::from_millis(random.below(60)));
                }
            });
        }
        let mut random = Random::new(99);
        let end = Instant::now() + Duration::from_secs(rounds(4, 60));
        while Instant::now() < end {
            let look = server.status();
            assert!(workers(&look).len() <= MOST + 1, "{look}");
            assert!(number(&look["pool"]["now"]) <= MOST as u64, "{look}");
            let children = server.workers();
            match random.below(10) {
                0 => server.signal(Signal::SIGHUP),
                1 if number(&look["pool"]["min"]) < 5 => server.signal(Signal::SIGTTIN),
                2 => server.signal(Signal::SIGTTOU),
                3 => thread::sleep(Duration::from_millis(random.below(500))),
                _ => {
                    let victim = children[random.below(children.len() as u64) as usize];
                    let _ = kill(victim, Signal::SIGKILL);
                }
            }
        }
    });
    let least = number(&server.status()["pool"]["min"]);
    let look = wait_for_size(&server, least);
    assert!(processes().iter().all(|process| process.parent != server.pid || process.state != 'Z'));
    let served = served.into_inner();
    assert!(served > 50, "{served} were served");
    let (connections, bytes) = (&look["totals"]["connections"], &look["totals"]["bytes"]);
    assert!(number(connections) >= served && number(bytes) >= 5 * served, "{served} were served: {look}");
    assert_eq!(server.stop(), 0);
}
