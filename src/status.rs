//! `status`: one look at a running server, as a table or as JSON; and the same
//! table for SIGUSR1.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Duration;

use serde::Serialize;

use crate::cli::StatusOptions;
use crate::exit::Failure;
use crate::logger::count;
use crate::scoreboard::Phase;
use crate::short;
use crate::snapshot::{Snapshot, Worker};

/// From so many slots on, a bar of the distribution stands for several.
const MOST_BARS: usize = 16;

/// Looks at the server that the user means, and prints what is seen.
///
/// # Errors
/// If there is no such server.
pub fn run(options: &StatusOptions) -> Result<(), Failure> {
    let view = options.which.view()?;
    let snapshot = Snapshot::take(view.scoreboard, &view.identity);
    // Not before: what was read in the meantime might have been noise.
    view.check()?;
    let text = if options.json { json(&snapshot) } else { table(&snapshot).join("\n") };
    match writeln!(io::stdout(), "{text}") {
        // Who reads no further, as head does, has seen enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::new("write to stdout", &error, "look where it leads"))
        }
        _ => Ok(()),
    }
}

/// Lines of 80 columns at the most.
pub fn table(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { identity, served, .. } = snapshot;
    let mut lines = vec![
        format!(
            "{} (pid {}): {} for {}, prefork-echo {}",
            identity.address,
            identity.pid,
            phase(snapshot.phase),
            short::span(snapshot.uptime),
            identity.version,
        ),
        format!(
            "served: {}, {}; {}",
            count(served.connections, "connection"),
            count(served.bytes, "byte"),
            count(snapshot.restarts, "restart")
        ),
    ];
    if let Some(queue) = snapshot.queue {
        lines.push(format!("accept queue: {queue}, of at most {}", snapshot.queue_limit));
    }
    lines.push(format!(
        "private counter: in each process at {:#x}; in the parent it is {}",
        identity.private_counter, snapshot.parents_counter
    ));
    lines.push(String::new());
    lines.push(row(["SLOT", "PID", "STATE", "FOR", "CLIENT", "SERVED", "BYTES", "PRIVATE", "RESTARTS"]));
    lines.extend(snapshot.workers.iter().map(worker));
    lines.push(String::new());
    lines.extend(distribution(snapshot));
    let exits = last_exits(snapshot);
    if !exits.is_empty() {
        lines.push(String::new());
        lines.extend(exits);
    }
    lines
}

/// What the server is doing, in a word.
pub fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Ended(_) => "ended",
    }
}

fn row([slot, pid, state, since, client, served, bytes, private, restarts]: [&str; 9]) -> String {
    format!(
        "{slot:>4} {pid:>7} {state:<8} {since:>5} {client:<21} {served:>6} {bytes:>6} {private:>7} {restarts:>8}"
    )
}

fn worker(worker: &Worker) -> String {
    let process = worker.process.as_ref();
    let text = |text: Option<String>| text.unwrap_or("-".into());
    row([
        &worker.slot.to_string(),
        &text(process.and_then(|process| process.pid).map(|pid| pid.to_string())),
        worker.state().name(),
        &text(process.map(|process| short::span(process.since))),
        &text(process.and_then(|process| process.peer).map(|peer| short::address(peer, 21))),
        &short::number(worker.served.connections),
        &short::number(worker.served.bytes),
        &text(process.map(|process| short::number(process.private_counter))),
        &short::number(worker.restarts),
    ])
}

/// How evenly the kernel has spread the connections over the slots.
fn distribution(snapshot: &Snapshot) -> Vec<String> {
    let slots: Vec<u64> = snapshot
        .workers
        .iter()
        .filter(|worker| !worker.leaving)
        .map(|worker| worker.served.connections)
        .collect();
    let group = slots.len().div_ceil(MOST_BARS).max(1);
    let bars: Vec<(String, u64)> = slots
        .chunks(group)
        .enumerate()
        .map(|(index, slots)| {
            let (first, last) = (index * group, index * group + slots.len() - 1);
            let name = if group == 1 { first.to_string() } else { format!("{first}-{last}") };
            (name, slots.iter().copied().fold(0, u64::saturating_add) / slots.len() as u64)
        })
        .collect();
    let most = bars.iter().map(|(_, connections)| *connections).max().unwrap_or(0) as f64;
    let each = if group == 1 { "" } else { ", the mean of each group" };
    let evenness = unevenness(&slots).map_or(String::new(), |ratio| format!(": max/mean {ratio:.2}"));
    let mut lines = vec![format!("connections by slot{each}{evenness}")];
    lines.extend(bars.iter().map(|(name, connections)| {
        let bar = short::bar(*connections as f64, most, 50);
        format!("{name:>9} {bar} {}", short::number(*connections)).trim_end().to_string()
    }));
    lines
}

/// The most of any slot by the mean of all; 1 is perfectly even. None before the
/// first connection.
pub fn unevenness(connections: &[u64]) -> Option<f64> {
    let sum: f64 = connections.iter().map(|number| *number as f64).sum();
    let most = connections.iter().max()?;
    (sum > 0.0).then(|| *most as f64 * connections.len() as f64 / sum)
}

/// How the last process that left a slot has died, those of one kind together.
fn last_exits(snapshot: &Snapshot) -> Vec<String> {
    const NAMED: usize = 8;
    let mut kinds: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for worker in &snapshot.workers {
        if let Some(exit) = &worker.last_exit {
            kinds.entry(exit).or_default().push(worker.slot);
        }
    }
    let line = |(exit, slots): (&str, Vec<usize>)| {
        let named: Vec<_> = slots.iter().take(NAMED).map(usize::to_string).collect();
        let more = slots.len().saturating_sub(NAMED);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        format!("last exit: {exit} (slot {}{more})", named.join(", "))
    };
    kinds.into_iter().map(line).collect()
}

/// One line, for programs.
fn json(snapshot: &Snapshot) -> String {
    let identity = &snapshot.identity;
    let status = Status {
        version: &identity.version,
        address: identity.address.to_string(),
        pid: identity.pid,
        state: phase(snapshot.phase),
        uptime_s: seconds(snapshot.uptime),
        accept_queue: snapshot.queue.map(|length| AcceptQueue { length, limit: snapshot.queue_limit }),
        totals: Totals {
            connections: snapshot.served.connections,
            bytes: snapshot.served.bytes,
            restarts: snapshot.restarts,
        },
        private_counter: PrivateCounter {
            address: format!("{:#x}", identity.private_counter),
            parent: snapshot.parents_counter,
        },
        workers: snapshot.workers.iter().map(WorkerStatus::from).collect(),
    };
    serde_json::to_string(&status).expect("numbers and texts can be written as JSON")
}

fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1_000.0
}

// The JSON: programs rely on these names.

#[derive(Serialize)]
struct Status<'a> {
    version: &'a str,
    address: String,
    pid: i32,
    state: &'a str,
    uptime_s: f64,
    accept_queue: Option<AcceptQueue>,
    totals: Totals,
    private_counter: PrivateCounter,
    workers: Vec<WorkerStatus<'a>>,
}

#[derive(Serialize)]
struct AcceptQueue {
    length: u64,
    limit: u64,
}

#[derive(Serialize)]
struct Totals {
    connections: u64,
    bytes: u64,
    restarts: u64,
}

#[derive(Serialize)]
struct PrivateCounter {
    address: String,
    parent: u64,
}

#[derive(Serialize)]
struct WorkerStatus<'a> {
    slot: usize,
    pid: Option<i32>,
    state: &'a str,
    restarts: u64,
    uptime_s: Option<f64>,
    connections: u64,
    bytes: u64,
    private_counter: Option<u64>,
    peer: Option<String>,
    last_exit: Option<&'a str>,
}

impl<'a> From<&'a Worker> for WorkerStatus<'a> {
    fn from(worker: &'a Worker) -> Self {
        let process = worker.process.as_ref();
        WorkerStatus {
            slot: worker.slot,
            pid: process.and_then(|process| process.pid).map(|pid| pid.as_raw()),
            state: worker.state().name(),
            restarts: worker.restarts,
            uptime_s: process.map(|process| seconds(process.uptime)),
            connections: worker.served.connections,
            bytes: worker.served.bytes,
            private_counter: process.map(|process| process.private_counter),
            peer: process.and_then(|process| process.peer).map(|peer| peer.to_string()),
            last_exit: worker.last_exit.as_deref(),
        }
    }
}
