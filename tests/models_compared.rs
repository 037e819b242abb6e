//! Three ways to serve (`--model`): how they differ, and what `status` and the narration show
//! of it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use crate::common::models::{ALL, SHARED, in_each, number, start, start_workers, sum, workers};
use crate::common::{Server, binary, heavy, run, status};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

#[test]
fn status_shows_the_model_the_clients_and_the_threads() {
    in_each(&ALL, |model| {
        let (most, threads) = match model {
            "process" => (1, 1),
            "thread" => (3, 4),
            _ => (3, 1),
        };
        let server = start_workers(model, 1, most, &[]);
        let mut clients = server.connect_served(most);
        let look = server.status();
        assert_eq!((&look["model"], &look["clients_per_worker"]), (&json!(model), &json!(most)), "{look}");
        assert_eq!(look["pool"], json!({"min": 1, "max": 1, "now": 1}));
        let worker = &look["workers"][0];
        let shown =
            ["clients", "threads", "private_counter", "careless_counter"].map(|of| number(&worker[of]));
        let counts = most as u64;
        assert_eq!(shown, [counts, threads, counts, counts], "{look}");
        let peer = |client: &TcpStream| json!(client.local_addr().unwrap().to_string());
        let first = if most == 1 { peer(&clients[0]) } else { Value::Null };
        assert_eq!(worker["peer"], first, "the peer is null with several clients");
        if most > 1 {
            assert_eq!(worker["state"], "serving");
            let line = format!("and up to {most} clients a worker; now {most} clients");
            let (_, table, _) = status(&[&server.address.to_string()]);
            assert!(table.contains(&format!("model {model}: ")) && table.contains(&line), "{table}");
        }
        let last = clients.pop().unwrap();
        drop(clients);
        let is_last = |look: &Value| look["workers"][0]["peer"] == peer(&last);
        server.wait_for_status("one client is left", is_last);
        drop(last);
        server.wait_for_status("all are gone", |look| {
            let worker = &look["workers"][0];
            worker["clients"] == 0 && worker["state"] == "idle" && worker["peer"] == Value::Null
        });
    });
}

#[test]
fn each_model_has_its_number_of_clients() {
    for (model, clients) in [("thread", 16), ("multiplex", 1024)] {
        let mut command = binary();
        command.env_remove("PREFORK_ECHO_CLIENTS").args(["--bind", "127.0.0.1:0", "--model", model]);
        assert_eq!(Server::spawn(command).status()["clients_per_worker"], clients);
    }
}

#[test]
fn a_wrong_number_of_clients_is_wrong_usage() {
    for (model, clients, remedy) in [
        ("process", "5", "for more clients raise --workers, or choose --model thread or --model multiplex"),
        ("thread", "513", "--model thread serves at most 512 clients in each worker; lower --clients"),
        ("multiplex", "65537", "'65537' for '--clients <N>': write a number from 1 to 65536"),
        ("multiplex", "0", "'0' for '--clients <N>': write a number from 1 to 65536"),
        ("thread", "0", "'0' for '--clients <N>': write a number from 1 to 65536"),
    ] {
        let mut command = binary();
        // An address of documentation alone: a server that did start would end at once.
        command.args(["--bind", "192.0.2.1:1", "--model", model, "--clients", clients]);
        let (code, message) = run(command);
        assert_eq!(code, 2, "--model {model} --clients {clients}: {message}");
        let line = message.lines().next().unwrap_or("");
        assert!(line.starts_with("error: ") && line.ends_with(remedy), "{message}");
    }
}

/// Ten clients that are connected already send at once. Returns how long it takes until all
/// have their answers.
fn ask_at_once(server: &Server) -> Duration {
    let (together, mut clients) = (Barrier::new(11), Vec::new());
    clients.resize_with(10, || server.connect());
    server.wait_for_status("all are accepted", |look| sum(look, "clients") == 10);
    let start = thread::scope(|scope| {
        for client in &mut clients {
            scope.spawn(|| {
                together.wait();
                client.write_all(b"hello").unwrap();
                client.read_exact(&mut [0; 5]).unwrap();
            });
        }
        let start = Instant::now();
        together.wait();
        start
    });
    start.elapsed()
}

#[test]
fn only_in_one_thread_clients_wait_for_the_work_of_others() {
    let _alone = heavy();
    in_each(&ALL, |model| {
        let server = start(model, 10, &["--work", "100ms"]);
        let took = ask_at_once(&server);
        let one_after_the_other = Duration::from_secs(1);
        match model {
            "multiplex" => assert!(took >= one_after_the_other, "{model}: {took:?}"),
            _ => {
                assert!((one_after_the_other / 10..one_after_the_other).contains(&took), "{model}: {took:?}")
            }
        }
        let look = server.status();
        let (private, careless) = (sum(&look, "private_counter"), sum(&look, "careless_counter"));
        assert_eq!(private, 10);
        // A count is lost only where others count in the same memory at the same time.
        match model {
            "thread" => assert!((1..10).contains(&careless), "{careless} of 10"),
            _ => assert_eq!(careless, 10, "{model}"),
        }
    });
}

/// How many of 400 clients, which come one after the other and stay, each of 4 workers gets.
fn load_of_kept_connections(model: &str) -> Vec<u64> {
    let server = start_workers(model, 4, 200, &["-q"]);
    server.wait_for_idle_workers(4);
    server.wait_for_sleeping_threads();
    let _clients = server.connect_served(400);
    let look = server.status();
    let clients: Vec<_> = workers(&look).iter().map(|worker| number(&worker["clients"])).collect();
    assert_eq!(clients.iter().sum::<u64>(), 400);
    clients
}

#[test]
fn the_load_of_kept_connections_is_even() {
    let _alone = heavy();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, soft.max(hard.min(4096)), hard).unwrap();
    for model in SHARED {
        // A worker that has to wait for a processor gets less than its share. On a quiet machine
        // the first run is even; on no machine all of them are uneven.
        let mut runs = Vec::new();
        while runs.len() < 10 {
            let clients = load_of_kept_connections(model);
            let is_even = clients.iter().all(|clients| *clients <= 120);
            runs.push(clients);
            if is_even {
                break;
            }
        }
        println!("{model}: 400 kept connections on 4 workers: {runs:?}");
        assert!(runs.last().unwrap().iter().all(|clients| *clients <= 120), "{model}: {runs:?}");
    }
}

#[test]
fn explain_narrates_the_calls_of_each_model() {
    in_each(&ALL, |model| {
        let mut server = start_workers(model, 1, if model == "process" { 1 } else { 3 }, &["--explain"]);
        let worker = server.workers()[0];
        server.echo(b"hello");
        server.wait_for_log(&["closed ", "end of file, 5 bytes echoed"]);
        let _leaving = server.connect_served(1);
        assert_eq!(server.stop(), 0);
        let special: &[&str] = match model {
            "process" => &["): asleep until a client connects", "): asleep until the client sends"],
            "thread" => &[
                "clone(), 3 threads: they share this process's memory",
                "): asleep until a client connects",
                "): asleep until the client sends",
            ],
            _ => &["epoll_wait() = 1: of 0 connections", "epoll_wait() = 1: of 1 connection"],
        };
        let steps = [
            "fork() = 0: ",
            ": woken; ",
            ") = 5: received 5 bytes",
            ") = 5: sent 5 bytes",
            ") = 0: end of file",
            "close(",
            ", SHUT_WR) = 0: the client is quiet",
            "_exit(0)",
        ];
        let log = server.log();
        let narrated: Vec<_> =
            log.iter().filter(|line| line.contains(&format!("(pid {worker}): "))).collect();
        for step in special.iter().chain(&steps) {
            assert!(narrated.iter().any(|line| line.contains(step)), "{model}: no {step:?} in {log:#?}");
        }
    });
}
