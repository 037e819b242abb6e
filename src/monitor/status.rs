//! `status`: one snapshot of a running server, as a table or as JSON. It runs in a process
//! of its own; the parent logs the same table on SIGUSR1.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::config::StatusOptions;
use crate::error::Error;
use crate::monitor::{format, table};
use crate::scoreboard::snapshot::{Snapshot, Worker};
use crate::scoreboard::{Phase, Reader, Served};
use crate::sys::process::ProcessState;
use crate::sys::sandbox::{Layer, Sandbox};
use crate::text::{self, count};

/// Reads the scoreboard of the server that the user means, and prints it.
///
/// # Errors
/// If there is no such server.
pub fn run(options: &StatusOptions) -> Result<(), Error> {
    let reader = Reader::of(&options.which, "status")?;
    let snapshot = Snapshot::of(&reader);
    // After the snapshot: it is noise if the file was overwritten meanwhile.
    reader.check()?;
    text::print(&if options.json { json(&snapshot) } else { table(&snapshot).join("\n") })
}

/// Lines of 80 columns at the most.
pub fn table(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { header, served, .. } = snapshot;
    let mut lines = vec![
        format!(
            "{} (pid {}): {} {}, prefork-echo {}",
            header.address,
            header.pid,
            match (snapshot.phase, snapshot.parent) {
                (_, ProcessState::Stopped) => "STOPPED, after",
                (Phase::Running, _) => "running for",
                (Phase::Draining, _) => "draining, after",
                (Phase::Ended(_), _) => "ended, after",
            },
            format::span(snapshot.uptime),
            header.version,
        ),
        format!(
            "served: {}, {}; {}",
            count(served.connections, "connection"),
            count(served.bytes, "byte"),
            count(snapshot.restarts, "restart")
        ),
    ];
    if let Some(queue) = snapshot.queue {
        lines.push(format!("accept queue: {queue} waiting (backlog {})", snapshot.queue_limit));
    }
    lines.push(format!(
        "private counter: in each process at {:#x}; in the parent it is {}",
        header.private_counter, snapshot.parents_counter
    ));
    lines.extend(credentials(snapshot));
    let columns = table::columns(80);
    lines.extend([String::new(), table::headings(&columns)]);
    lines.extend(snapshot.workers.iter().map(|worker| table::row(&columns, worker)));
    lines.push(String::new());
    lines.extend(snapshot.by_slot(|served| served.connections).lines("connections"));
    let exits = last_exits(snapshot);
    if !exits.is_empty() {
        lines.push(String::new());
        lines.extend(exits);
    }
    lines
}

/// What the server is doing, in a word.
fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Running => "running",
        Phase::Draining => "draining",
        Phase::Ended(_) => "ended",
    }
}

/// The workers' user and sandbox: one line, unless they differ. The user is a number: the
/// parent logs this too, and must not wait for a name service.
fn credentials(snapshot: &Snapshot) -> Vec<String> {
    let groups = group_slots(snapshot, |worker| worker.process.as_ref()?.credentials);
    let alike = groups.len() == 1;
    let line = |((uid, sandbox), slots): ((u32, Sandbox), Vec<usize>)| {
        let line = format!("workers' user id: {uid}; sandbox: {sandbox}");
        if alike { line } else { name_slots(line, &slots) }
    };
    groups.into_iter().map(line).collect()
}

/// How the last worker that left each slot has ended.
fn last_exits(snapshot: &Snapshot) -> Vec<String> {
    let groups = group_slots(snapshot, |worker| worker.last_exit.as_ref());
    groups.into_iter().map(|(exit, slots)| name_slots(format!("last exit: {exit}"), &slots)).collect()
}

/// The slots, grouped by what `key` says of their workers.
fn group_slots<'a, T: Ord>(
    snapshot: &'a Snapshot,
    key: impl Fn(&'a Worker) -> Option<T>,
) -> BTreeMap<T, Vec<usize>> {
    let mut groups: BTreeMap<T, Vec<usize>> = BTreeMap::new();
    for worker in &snapshot.workers {
        if let Some(key) = key(worker) {
            groups.entry(key).or_default().push(worker.slot);
        }
    }
    groups
}

/// Adds "(slots 0, 1 and 2 more)": as many as the line has room for, and one at least.
fn name_slots(line: String, slots: &[usize]) -> String {
    let room = 80_usize.saturating_sub(line.len() + " (slots  and 4096 more)".len());
    let named = slots.len().min((room / ", 4095".len()).max(1));
    let names: Vec<_> = slots[..named].iter().map(usize::to_string).collect();
    let more = slots.len() - named;
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let noun = if slots.len() == 1 { "slot" } else { "slots" };
    format!("{line} ({noun} {}{more})", names.join(", "))
}

/// One line, for programs.
fn json(snapshot: &Snapshot) -> String {
    let header = &snapshot.header;
    let status = Status {
        version: &header.version,
        address: header.address.to_string(),
        pid: header.pid,
        state: phase(snapshot.phase),
        uptime_s: seconds(snapshot.uptime),
        accept_queue: snapshot.queue.map(|length| AcceptQueue { length, limit: snapshot.queue_limit }),
        totals: Totals { served: snapshot.served, restarts: snapshot.restarts },
        private_counter: PrivateCounter {
            address: format!("{:#x}", header.private_counter),
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
    #[serde(flatten)]
    served: Served,
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
    uid: Option<u32>,
    sandbox: Option<Vec<&'static str>>,
}

impl<'a> From<&'a Worker> for WorkerStatus<'a> {
    fn from(worker: &'a Worker) -> Self {
        let process = worker.process.as_ref();
        let credentials = process.and_then(|process| process.credentials);
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
            uid: credentials.map(|(uid, _)| uid),
            sandbox: credentials.map(|(_, sandbox)| sandbox.parts().map(Layer::name).collect()),
        }
    }
}
