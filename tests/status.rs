//! `status` tells the truth, and finds the server that is meant.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crate::common::{Server, SetOnDrop, connect, echo, heavy, noise, status, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn sum(look: &Value, of: &str) -> u64 {
    look["workers"].as_array().unwrap().iter().map(|worker| number(&worker[of])).sum()
}

fn worker_pid(look: &Value, slot: usize) -> Pid {
    Pid::from_raw(look["workers"][slot]["pid"].as_i64().unwrap() as i32)
}

/// Waits until `status` shows what is to come.
#[track_caller]
fn wait_for_status(server: &Server, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
    let mut look = Value::Null;
    wait_until(what, || {
        look = server.status();
        condition(&look)
    });
    look
}

#[test]
fn the_json_is_what_programs_rely_on() {
    let server = Server::start(&["--workers", "2", "--backlog", "5"]);
    let look = wait_for_status(&server, "all are idle", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    let queue = if cfg!(target_os = "linux") { json!({"length": 0, "limit": 5}) } else { Value::Null };
    let pids: Vec<_> = look["workers"].as_array().unwrap().iter().map(|worker| &worker["pid"]).collect();
    let uptimes = (&look["uptime_s"], &look["workers"][0]["uptime_s"], &look["workers"][1]["uptime_s"]);
    let uid = nix::unistd::geteuid().as_raw();
    let sandbox = &look["workers"][0]["sandbox"]; // As far as the kernel has it.
    let worker = |slot: usize, uptime: &Value| {
        json!({"slot": slot, "pid": pids[slot], "state": "idle", "restarts": 0, "uptime_s": uptime,
               "connections": 0, "bytes": 0, "bad_headers": 0, "private_counter": 0, "careless_counter": 0,
               "clients": 0, "threads": 1, "peer": null, "via": null, "last_exit": null, "uid": uid, "sandbox": sandbox})
    };
    let expected = json!({
        "version": env!("CARGO_PKG_VERSION"), "address": server.address.to_string(),
        "pid": server.pid.as_raw(), "state": "running", "uptime_s": uptimes.0, "accept_queue": queue,
        "model": "process", "clients_per_worker": 1, "pool": {"min": 2, "max": 2, "now": 2},
        "totals": {"connections": 0, "bytes": 0, "bad_headers": 0, "restarts": 0},
        "private_counter": {"address": look["private_counter"]["address"], "parent": 0},
        "workers": [worker(0, uptimes.1), worker(1, uptimes.2)]});
    assert_eq!(look, expected);
    assert!(uptimes.0.is_f64() && uptimes.1.is_f64() && uptimes.2.is_f64(), "{look}");
    let mut shown: Vec<_> = pids.iter().filter_map(|pid| pid.as_i64()).collect();
    shown.sort();
    assert_eq!(shown, server.workers().iter().map(|pid| pid.as_raw().into()).collect::<Vec<i64>>());
}

#[test]
fn status_overlooks_no_server_with_few_descriptors() {
    let server = Server::start(&["--workers", "1"]);
    for number in 3..=8 {
        let mut shell = std::process::Command::new("sh");
        shell.env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR")).env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
        shell.args(["-c", &format!("exec <&-; ulimit -n {number}; exec \"$0\" status \"$1\"")]);
        shell.args([env!("CARGO_BIN_EXE_prefork-echo"), &server.address.to_string()]);
        let (code, message) = crate::common::run(shell);
        let names_the_limit = code == 1 && message.contains("too many open files; raise the limit");
        assert!(code == 0 || names_the_limit, "ulimit -n {number}: {code} {message}");
    }
}

#[test]
fn counts_match_the_clients_despite_kills() {
    let server = Server::start(&["--workers", "3"]);
    let message = noise(777);
    for _ in 0..20 {
        server.echo(&message);
    }
    // Each worker is killed once while it is idle, once with a client that it has
    // served: what they did before is not forgotten.
    for slot in 0..3 {
        let before = server.status();
        kill(worker_pid(&before, slot), Signal::SIGKILL).unwrap();
        wait_for_status(&server, "it is replaced", |look| look["workers"][slot]["restarts"] == 1);
    }
    for round in 1..=3 {
        let mut client = server.connect();
        echo(&mut client, &message);
        let peer = client.local_addr().unwrap().to_string();
        let look = wait_for_status(&server, "the client is seen", |look| {
            look["workers"].as_array().unwrap().iter().any(|worker| worker["peer"] == peer)
        });
        let workers = look["workers"].as_array().unwrap();
        let busy = workers.iter().find(|worker| worker["peer"] == peer).unwrap();
        kill(Pid::from_raw(busy["pid"].as_i64().unwrap() as i32), Signal::SIGKILL).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
        wait_for_status(&server, "it is replaced", |look| look["totals"]["restarts"] == 3 + round);
    }
    let look = server.status();
    let totals = json!({"connections": 23, "bytes": 23 * 777, "bad_headers": 0, "restarts": 6});
    assert_eq!(look["totals"], totals);
    assert_eq!((sum(&look, "connections"), sum(&look, "bytes"), sum(&look, "restarts")), (23, 23 * 777, 6));
    assert_eq!(look["workers"][0]["last_exit"], "killed by SIGKILL");
}

#[test]
fn every_byte_received_is_counted_despite_kills() {
    let _alone = heavy();
    const MESSAGE: usize = 64;
    let server = Server::start(&["--workers", "4", "-q"]);
    let (address, stop) = (server.address, AtomicBool::new(false));
    let (got, whole, cut) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let one_life = || -> std::io::Result<()> {
        let mut client = connect(address);
        let mut answer = [0; MESSAGE];
        for _ in 0..20 {
            client.write_all(&[7; MESSAGE])?;
            let mut length = 0;
            while length < MESSAGE {
                match client.read(&mut answer[length..])? {
                    0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                    more => {
                        length += more;
                        got.fetch_add(more as u64, Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    };
    let mut kills = 0;
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let outcome = if one_life().is_ok() { &whole } else { &cut };
                    outcome.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let _end = SetOnDrop(&stop);
        while kills < 30 {
            let victims = server.workers();
            // One of ours, seen a moment ago.
            if victims.get(kills % 4).is_some_and(|victim| kill(*victim, Signal::SIGKILL).is_ok()) {
                kills += 1;
            }
        }
    });
    let look = wait_for_status(&server, "all are replaced and idle", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    let (got, whole, cut) = (got.into_inner(), whole.into_inner(), cut.into_inner());
    let (connections, bytes) = (number(&look["totals"]["connections"]), number(&look["totals"]["bytes"]));
    // A connection that was cut may have been cut before accept.
    assert!((whole..=whole + cut).contains(&connections), "{connections}: {whole} whole, {cut} cut");
    // A worker may be killed between its count and its send.
    let most = got + kills as u64 * MESSAGE as u64;
    assert!((got..=most).contains(&bytes), "{bytes} counted, {got} got, {kills} kills");
    assert_eq!((sum(&look, "connections"), sum(&look, "bytes")), (connections, bytes));
}

#[test]
fn the_private_counter_has_one_address_and_many_values() {
    let server = Server::start(&["--workers", "3"]);
    for _ in 0..10 {
        server.echo(b"hello");
    }
    let look = wait_for_status(&server, "all are idle", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    let address = look["private_counter"]["address"].as_str().unwrap();
    assert_eq!((&look["private_counter"]["parent"], sum(&look, "private_counter")), (&json!(0), 10));

    assert!(look["workers"].as_array().unwrap().iter().all(|worker| worker["peer"] == Value::Null), "{look}");

    // The log has both counters: each process's own, and the one that all share.
    let lines: Vec<_> = server.log().into_iter().filter(|line| line.contains(": accepted ")).collect();
    let after = |line: &str, before: &str| crate::common::number_following(line, before) as u64;
    let mut totals: Vec<_> = lines.iter().map(|line| after(line, "shared total ")).collect();
    totals.sort();
    assert_eq!(totals.last(), Some(&10));
    for worker in look["workers"].as_array().unwrap() {
        let name = format!("(pid {}): ", worker["pid"]);
        let own = lines.iter().filter(|line| line.contains(&name));
        let counts: Vec<_> = own.clone().map(|line| after(line, "private count ")).collect();
        assert_eq!(counts, (1..=number(&worker["private_counter"])).collect::<Vec<_>>());
        assert!(own.clone().all(|line| line.contains(&format!(" at {address}, "))), "{lines:?}");
    }

    // And it is where it is said to be, in each process.
    #[cfg(target_os = "linux")]
    {
        use std::os::unix::fs::FileExt;
        let at = u64::from_str_radix(address.trim_start_matches("0x"), 16).unwrap();
        let value_in = |pid: i32| {
            let mut bytes = [0; 8];
            std::fs::File::open(format!("/proc/{pid}/mem")).unwrap().read_exact_at(&mut bytes, at).unwrap();
            u64::from_ne_bytes(bytes)
        };
        assert_eq!(value_in(server.pid.as_raw()), 0);
        for worker in look["workers"].as_array().unwrap() {
            let pid = worker["pid"].as_i64().unwrap() as i32;
            assert_eq!(value_in(pid), number(&worker["private_counter"]));
        }
    }
}

#[test]
fn a_new_worker_counts_from_zero() {
    let server = Server::start(&["--workers", "1"]);
    server.echo(b"hello");
    let look = server.status();
    kill(worker_pid(&look, 0), Signal::SIGKILL).unwrap();
    let look = wait_for_status(&server, "it is replaced", |look| {
        look["workers"][0]["restarts"] == 1 && look["workers"][0]["state"] == "idle"
    });
    let worker = &look["workers"][0];
    assert_eq!((&worker["private_counter"], &worker["connections"]), (&json!(0), &json!(1)));
}

#[test]
fn each_state_is_shown_with_its_client() {
    let mut server = Server::start(&["--workers", "3"]);
    let mut reading = server.connect();
    echo(&mut reading, b"hello");
    let writing = server.connect_without_reading();
    let state_of = |look: &Value, client: &TcpStream| {
        let peer = client.local_addr().unwrap().to_string();
        let workers = look["workers"].as_array().unwrap();
        workers.iter().find(|worker| worker["peer"] == peer).map(|worker| worker["state"].clone())
    };
    wait_for_status(&server, "one reads, one writes, one is idle", |look| {
        state_of(look, &reading) == Some("reading".into())
            && state_of(look, &writing) == Some("writing".into())
            && look["workers"].as_array().unwrap().iter().any(|worker| worker["state"] == "idle")
    });
    drop(writing);
    // As long as the client talks, its worker drains, and the slots of those that have left
    // are empty.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                echo(&mut reading, b"still here");
            }
        });
        let _end = SetOnDrop(&stop);
        server.signal(Signal::SIGTERM);
        // Dead for an instant, and then reaped.
        let has_left = |worker: &&Value| worker["state"] == "down" && worker["pid"] == Value::Null;
        let look = wait_for_status(&server, "the server drains", |look| {
            let workers = look["workers"].as_array().unwrap().iter();
            look["state"] == "draining"
                && workers.clone().any(|worker| worker["state"] == "draining")
                && workers.filter(has_left).count() == 2
        });
        if cfg!(target_os = "linux") {
            // A full queue would drop the end of handshakes.
            let most = fs::read_to_string("/proc/sys/net/core/somaxconn").unwrap();
            let most: u64 = most.trim().parse().unwrap();
            assert_eq!(look["accept_queue"]["limit"], most.min(4096), "the queue has room for all");
        }
        let down = look["workers"].as_array().unwrap().iter().find(has_left).unwrap();
        assert_eq!(down["last_exit"], "left with exit code 0");
        assert_eq!(down["peer"], Value::Null);
    });
    drop(reading);
    assert_eq!(server.wait_code(), 0);
}

#[test]
fn a_draining_worker_is_shown_beside_its_replacement() {
    let server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    let old = worker_pid(&server.status(), 0);
    // As long as the client talks, its worker stays.
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                echo(&mut client, b"still here");
            }
        });
        let end = SetOnDrop(&stop);
        server.signal(Signal::SIGHUP);
        let look = wait_for_status(&server, "there are two", |look| {
            look["workers"].as_array().unwrap().len() == 2 && look["workers"][1]["state"] == "draining"
        });
        drop(end);
        assert_eq!((worker_pid(&look, 1), &look["workers"][1]["slot"]), (old, &json!(0)));
        assert_eq!(
            (&look["workers"][0]["restarts"], &look["workers"][1]["restarts"]),
            (&json!(1), &json!(0))
        );
        assert_eq!((sum(&look, "connections"), sum(&look, "bytes")), (1, number(&look["totals"]["bytes"])));
    });
    wait_for_status(&server, "the old one has left", |look| {
        look["workers"].as_array().unwrap().len() == 1 && look["workers"][0]["connections"] == 1
    });
}

#[test]
fn a_removed_slots_counts_stay_in_the_totals() {
    let server = Server::start(&["--workers", "2"]);
    kill(worker_pid(&server.status(), 1), Signal::SIGKILL).unwrap();
    wait_for_status(&server, "it is replaced", |look| look["totals"]["restarts"] == 1);
    for _ in 0..6 {
        server.echo(b"hello");
    }
    server.signal(Signal::SIGTTOU);
    let look = wait_for_status(&server, "one is left", |look| look["workers"].as_array().unwrap().len() == 1);
    assert_eq!((&look["totals"]["connections"], &look["totals"]["restarts"]), (&json!(6), &json!(1)));
    server.signal(Signal::SIGTTIN);
    let look = wait_for_status(&server, "there are two again", |look| {
        look["workers"].as_array().unwrap().len() == 2
    });
    assert_eq!((sum(&look, "connections"), &look["workers"][1]["restarts"]), (6, &json!(1)));
}

#[test]
fn a_snapshot_is_consistent_while_slots_change() {
    let server = Server::start(&["--workers", "1"]);
    for _ in 0..6 {
        server.echo(b"hello");
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                server.signal(Signal::SIGTTIN);
                server.signal(Signal::SIGTTOU);
            }
        });
        let _end = SetOnDrop(&stop);
        for _ in 0..50 {
            let look = server.status();
            assert_eq!((&look["totals"]["connections"], sum(&look, "connections")), (&json!(6), 6), "{look}");
        }
    });
}

#[test]
fn stopped_and_dead_processes_are_shown() {
    let server = Server::start(&["--workers", "2"]);
    let look = server.status();
    let (first, second) = (worker_pid(&look, 0), worker_pid(&look, 1));
    kill(first, Signal::SIGSTOP).unwrap();
    server.signal(Signal::SIGSTOP);
    kill(second, Signal::SIGKILL).unwrap();
    let address = server.address.to_string();
    let mut table = String::new();
    wait_until("all three are shown", || {
        table = status(&[&address]).1;
        table.contains(&format!("{first:>7} stopped")) && table.contains(&format!("{second:>7} dead"))
    });
    assert!(table.contains(": STOPPED, after "), "{table}");
    assert_eq!(server.status()["workers"][1]["state"], "down");
    server.signal(Signal::SIGCONT);
    kill(first, Signal::SIGCONT).unwrap();
    wait_for_status(&server, "all are well again", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
}

#[test]
fn the_time_a_worker_is_blocked_is_shown() {
    let server = Server::start(&["--workers", "1"]);
    let _greedy = server.connect_without_reading();
    let address = server.address.to_string();
    // Longer than the looks at whether the client takes anything.
    wait_until("it writes for more than a second", || {
        let table = status(&[&address]).1;
        let row = table.lines().find(|line| line.contains(" writing ")).unwrap_or_default().to_owned();
        row.split_whitespace().nth(3).is_some_and(|time| !time.starts_with("0."))
    });
}

#[cfg(target_os = "linux")]
#[test]
fn the_accept_queue_is_shown() {
    let server = Server::start(&["--workers", "1", "--backlog", "7"]);
    let mut first = server.connect();
    echo(&mut first, b"hello");
    let waiting: Vec<_> = (0..3).map(|_| server.connect()).collect();
    let look = wait_for_status(&server, "three wait", |look| look["accept_queue"]["length"] == 3);
    assert_eq!(look["accept_queue"]["limit"], 7);
    drop((first, waiting));
    wait_for_status(&server, "the queue is empty", |look| look["accept_queue"]["length"] == 0);

    let mut v6 = crate::common::binary();
    v6.args(["--bind", "[::1]:0", "--workers", "1"]);
    let server = Server::spawn(v6);
    let mut first = server.connect();
    echo(&mut first, b"hello");
    let _second = server.connect();
    let look = wait_for_status(&server, "one waits", |look| look["accept_queue"]["length"] == 1);
    assert_eq!(look["workers"][0]["peer"], first.local_addr().unwrap().to_string());
}

#[test]
fn status_works_while_every_process_is_stopped_or_busy() {
    let server = Server::start(&["--workers", "2"]);
    let clients: Vec<_> = (0..2).map(|_| server.connect_without_reading()).collect();
    server.signal(Signal::SIGSTOP);
    wait_for_status(&server, "both write", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "writing")
    });
    server.signal(Signal::SIGCONT);
    drop(clients);
}

#[test]
fn the_table_fits_80_columns_and_equals_the_log() {
    let server = Server::start(&["--workers", "3"]);
    for _ in 0..5 {
        server.echo(b"hello");
    }
    let mut client = server.connect();
    echo(&mut client, b"hello");
    kill(worker_pid(&server.status(), 0), Signal::SIGKILL).unwrap();
    wait_for_status(&server, "it is replaced, and nothing changes any more", |look| {
        let states = look["workers"].as_array().unwrap().iter().map(|worker| &worker["state"]);
        look["totals"]["restarts"] == 1 && states.clone().all(|state| state == "idle" || state == "reading")
    });

    let address = server.address.to_string();
    let (code, table, _) = status(&[&address]);
    assert_eq!(code, 0);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    for part in [&*address, "6 connections, 30 bytes; 1 restart", "max/mean", "killed by SIGKILL (slot 0)"] {
        assert!(table.contains(part), "no {part:?} in {table}");
    }
    server.signal(Signal::SIGUSR1);
    server.wait_for_log(&["last exit: killed by SIGKILL (slot 0)"]);
    let log = server.log();
    // Times differ, of course; but every line has its like.
    let without_times = |line: &str| {
        let words = line.split_whitespace().filter(|word| !word.ends_with('s') && !word.ends_with("s,"));
        words.collect::<Vec<_>>().join(" ")
    };
    let logged: Vec<_> =
        log.iter().filter_map(|line| line.split_once(&format!("parent {}: ", server.pid))).collect();
    for line in table.lines().filter(|line| !line.is_empty()) {
        let found = logged.iter().any(|(_, logged)| without_times(logged) == without_times(line));
        assert!(found, "{line:?} is not in {log:#?}");
    }
}

#[test]
fn usr1_is_answered_at_every_level() {
    for options in [&["-q"][..], &["-q", "--log-format", "json"], &["-q", "--explain"], &["-v"]] {
        let server = Server::start(&[options, &["--workers", "1"]].concat());
        server.echo(b"hello");
        server.signal(Signal::SIGUSR1);
        for part in [&format!("{} (pid {}): running for ", server.address, server.pid), "RESTARTS", "by slot"]
        {
            let line = server.wait_for_log(&[part]);
            if options.contains(&"json") {
                let object: Value = serde_json::from_str(&line).unwrap();
                assert_eq!((&object["level"], &object["process"]), (&json!("info"), &json!("parent")));
            } else {
                assert!(line.contains(&format!(" [INFO ] parent {}: ", server.pid)), "{line}");
            }
        }
        // And nothing but what was asked for.
        let connection = |line: &String| line.contains("accepted ");
        assert_eq!(server.log().iter().any(connection), options == ["-v"], "{options:?}");
    }
}

#[test]
fn a_hundred_workers_fit_into_the_table() {
    let server = Server::start(&["--workers", "100", "-q"]);
    for _ in 0..20 {
        server.echo(b"hello");
    }
    let look = wait_for_status(&server, "all are idle", |look| {
        look["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "idle")
    });
    assert_eq!((look["workers"].as_array().unwrap().len(), sum(&look, "connections")), (100, 20));
    let (_, table, _) = status(&[&server.address.to_string()]);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("connections by slot, the mean of each group: max/mean"), "{table}");
}

#[test]
fn a_closed_stdout_is_reported() {
    let server = Server::start(&["--workers", "1"]);
    let address = server.address.to_string();
    let with_stdout = |redirected: &str, arguments: &[&str]| {
        let mut command = Command::new("sh");
        let script = format!("exec \"$0\" \"$@\" {redirected}");
        command.args(["-c", &script, env!("CARGO_BIN_EXE_prefork-echo")]).args(arguments);
        crate::common::run(command_like(command))
    };
    for arguments in [
        vec!["status", &address],
        vec!["status", "--json", &address],
        vec!["top", "--once", &address],
        vec!["client", &address, "hello"],
        vec!["bench", "-c", "1", "-n", "4", &address],
        vec!["bench", "-c", "1", "-n", "4", "--json", &address],
    ] {
        let (code, message) = with_stdout(">&-", &arguments);
        assert_eq!(code, 1, "{arguments:?}");
        assert!(message.starts_with("prefork-echo: cannot write to stdout: "), "{message}");
        assert_eq!(message.lines().count(), 1, "{message}");
        // What Rust opens in its place is open for both, and so is this.
        assert_eq!(with_stdout("1<>/dev/null", &arguments), (0, String::new()), "{arguments:?}");
    }
}

/// With the environment of the binary under test.
fn command_like(mut command: Command) -> Command {
    for (name, value) in crate::common::binary().get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn the_unspecified_address_is_shown_as_clients_reach_it() {
    let server = Server::start(&[]);
    let (code, stdout, stderr) = status(&[&format!("0.0.0.0:{}", server.address.port())]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    assert!(stdout.contains(&format!("(pid {})", server.pid)), "{stdout}");
}
