//! `status --openmetrics` says what `status --json` says, in a form that Prometheus reads.
//! `.ci/generated` has it read by the parser of Prometheus's Python library.

use std::collections::BTreeMap;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::{Server, connect, echo, status, wait_until};

/// The samples by their names with labels, without the address.
type Samples = BTreeMap<String, f64>;

/// Reads the text as strictly as its specification asks: each family is described before its
/// samples, no sample comes twice, and the text has its end.
#[track_caller]
fn samples(text: &str, address: &str) -> Samples {
    let label = format!("{{address=\"{address}\"");
    let body = text.strip_suffix("# EOF\n").expect("it says where it ends");
    let (mut family, mut kind, mut samples) = ("", "", Samples::new());
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty() && name.starts_with("prefork_echo_"), "{line}");
                family = name;
            }
            ["#", "TYPE", name, word @ ("counter" | "gauge")] => {
                assert_eq!(name, family, "{line}");
                kind = word;
            }
            ["#", "UNIT", name, unit] => {
                assert!(name == family && name.ends_with(&format!("_{unit}")), "{line}")
            }
            _ => {
                let (name, value) = line.rsplit_once(' ').unwrap();
                let suffix = if kind == "counter" { "_total" } else { "" };
                assert!(name.starts_with(&format!("{family}{suffix}{label}")), "{kind} {family}: {line}");
                let name = name.replace(&label, "{").replace("{,", "{").replace("{}", "");
                let name = name.trim_start_matches("prefork_echo_").to_owned();
                assert!(samples.insert(name, value.parse().unwrap()).is_none(), "twice: {line}");
            }
        }
    }
    samples
}

#[track_caller]
fn look(server: &Server) -> Samples {
    let address = server.address.to_string();
    let (code, text, stderr) = status(&[&address, "--openmetrics"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    samples(&text, &address)
}

#[test]
fn it_says_what_the_json_says() {
    let server = Server::start(&["--workers", "3", "--max-workers", "5", "--backlog", "7"]);
    server.wait_for_idle_workers(3);
    server.echo(b"hello");
    let mut client = server.connect();
    echo(&mut client, b"hello, you");
    wait_until("it reads, and the others are idle", || {
        let look = look(&server);
        look["workers{state=\"reading\"}"] == 1.0 && look["workers{state=\"idle\"}"] == 2.0
    });
    let mut wanted = Samples::from(
        [
            ("info{version=\"0.1.0\",model=\"process\"}", 1.0),
            ("draining", 0.0),
            ("connections_total", 2.0),
            ("echoed_bytes_total", 15.0),
            ("bad_headers_total", 0.0),
            ("restarts_total{cause=\"left\"}", 0.0),
            ("restarts_total{cause=\"killed\"}", 0.0),
            ("restarts_total{cause=\"crashed\"}", 0.0),
            ("clients", 1.0),
            ("clients_per_worker", 1.0),
            ("pool_min", 3.0),
            ("pool_max", 5.0),
            ("pool_now", 3.0),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for state in ["down", "starting", "idle", "reading", "writing", "serving", "draining", "stopped"] {
        let number = [("reading", 1.0), ("idle", 2.0)].into_iter().find(|(name, _)| *name == state);
        wanted.insert(format!("workers{{state=\"{state}\"}}"), number.map_or(0.0, |(_, number)| number));
    }
    if cfg!(target_os = "linux") {
        wanted.insert("accept_queue_length".into(), 0.0);
        wanted.insert("accept_queue_limit".into(), 7.0);
    }
    let mut seen = look(&server);
    let uptime = seen.remove("uptime_seconds").unwrap();
    assert!((0.0..60.0).contains(&uptime), "{uptime}");
    assert_eq!(seen, wanted);
    assert!(server.status()["uptime_s"].as_f64().unwrap() >= uptime);
}

#[test]
fn each_restart_has_its_cause() {
    let server = Server::start(&["--workers", "2"]);
    let by_cause = |look: &Samples| {
        ["left", "killed", "crashed"].map(|cause| look[&format!("restarts_total{{cause=\"{cause}\"}}")])
    };
    let mut wanted = [0.0; 3];
    let mut check = |cause: usize, more: f64, what: &str| {
        wanted[cause] += more;
        wait_until(what, || by_cause(&look(&server)) == wanted);
        assert_eq!(server.status()["totals"]["restarts"].as_f64().unwrap(), wanted.iter().sum::<f64>());
    };
    let strike = |signal| {
        server.wait_for_idle_workers(2);
        // A worker that has served is past its start, and its crash is not waited after.
        (0..4).for_each(|_| server.echo(b"hello"));
        kill(server.workers()[0], signal).unwrap();
    };
    strike(Signal::SIGKILL);
    check(1, 1.0, "one was killed");
    strike(Signal::SIGABRT);
    check(2, 1.0, "one crashed");
    strike(Signal::SIGTERM);
    check(0, 1.0, "one left");
    server.wait_for_idle_workers(2);
    server.signal(Signal::SIGHUP);
    check(0, 2.0, "all were replaced");
}

#[test]
fn a_worker_that_retires_has_left() {
    let model = ["--workers", "1", "--model", "multiplex", "--max-connections", "1"];
    let server = Server::start(&model);
    let mut stays = server.connect();
    echo(&mut stays, b"hello");
    wait_until("another worker fills the slot", || {
        // It may accept a tenth more.
        let _more = connect(server.address);
        look(&server)["restarts_total{cause=\"left\"}"] >= 1.0
    });
    let look = look(&server);
    for cause in ["killed", "crashed"] {
        assert_eq!(look[&format!("restarts_total{{cause=\"{cause}\"}}")], 0.0, "{cause}");
    }
}

#[test]
fn a_stopped_worker_is_seen_as_such() {
    let server = Server::start(&["--workers", "2"]);
    server.wait_for_idle_workers(2);
    let worker = server.workers()[0];
    kill(worker, Signal::SIGSTOP).unwrap();
    let stopped = |look: &Samples| (look["workers{state=\"stopped\"}"], look["workers{state=\"idle\"}"]);
    wait_until("it is stopped", || stopped(&look(&server)) == (1.0, 1.0));
    kill(worker, Signal::SIGCONT).unwrap();
    wait_until("it goes on", || stopped(&look(&server)) == (0.0, 2.0));
}

#[test]
fn a_server_that_shuts_down_is_seen_as_such() {
    let mut server = Server::start(&["--workers", "1"]);
    let mut client = server.connect();
    echo(&mut client, b"hello");
    kill(Pid::from_raw(server.pid.as_raw()), Signal::SIGTERM).unwrap();
    wait_until("it drains", || look(&server)["draining"] == 1.0);
    drop(client);
    assert_eq!(server.wait_code(), 0);
    let (code, stdout, stderr) = status(&[&server.address.to_string(), "--openmetrics"]);
    assert!(code == 1 && stdout.is_empty() && stderr.contains("no server of this user"), "{code} {stderr}");
}

#[test]
fn it_is_one_of_two_forms() {
    let (code, stdout, stderr) = status(&["--json", "--openmetrics"]);
    assert!(code == 2 && stdout.is_empty(), "{code} {stdout}");
    assert!(stderr.contains("'--json' cannot be used with '--openmetrics'"), "{stderr}");
}
