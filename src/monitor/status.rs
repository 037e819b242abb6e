//! `status`: one snapshot of a running server, as a table, as JSON or for Prometheus. It runs in a process
//! of its own; the parent logs the same table on SIGUSR1.

use std::collections::BTreeMap;

use crate::config::{Model, StatusOptions};
use crate::error::Error;
use crate::monitor::{distribution, format, openmetrics, table};
use crate::scoreboard::snapshot::{Pool, Snapshot, Worker};
use crate::scoreboard::{Phase, Reader};
use crate::sys::process::ProcessState;
use crate::text::{self, count};

/// Reads the scoreboard of the server that the user means, and prints it.
///
/// # Errors
/// If there is no such server.
pub fn run(options: &StatusOptions) -> Result<(), Error> {
    let mut reader = Reader::of(&options.which, "status")?;
    let mut snapshot = Snapshot::of(&reader);
    if let Some(successor) = reader.successor(&options.which, "status") {
        reader = successor;
        snapshot = Snapshot::of(&reader);
    }
    // After the snapshot: it is noise if the file was overwritten meanwhile.
    reader.check()?;
    text::print(&match options {
        StatusOptions { json: true, .. } => {
            serde_json::to_string(&snapshot).expect("it can be written as JSON")
        }
        StatusOptions { openmetrics: true, .. } => openmetrics::text(snapshot),
        _ => table(&snapshot).join("\n"),
    })
}

/// Lines of 80 columns at the most.
pub fn table(snapshot: &Snapshot) -> Vec<String> {
    let Snapshot { version, address, pid, accept_queue, totals, private_counter, workers, .. } = snapshot;
    let state = match (snapshot.phase, snapshot.parent) {
        (_, ProcessState::Stopped) => "STOPPED, after",
        (Phase::Running, _) => "running for",
        (Phase::Draining, _) => "draining, after",
        (Phase::Ended(_), _) => "ended, after",
    };
    let uptime = format::span(snapshot.uptime);
    let connections = count(totals.served.connections, "connection");
    let bytes = count(totals.served.bytes, "byte");
    let mut lines = vec![
        format!("{address} (pid {pid}): {state} {uptime}, prefork-echo {version}"),
        format!("served: {connections}, {bytes}; {}", count(totals.restarts, "restart")),
    ];
    if totals.served.bad_headers > 0 {
        lines.push(format!(
            "without a PROXY header, and closed: {}",
            count(totals.served.bad_headers, "connection")
        ));
    }
    if let Some(length) = accept_queue.length {
        lines.push(format!("accept queue: {length} waiting (backlog {})", accept_queue.limit));
    }
    lines.push(format!(
        "private counter: in each process at {}; in the parent it is {}",
        private_counter.address, private_counter.parent
    ));
    lines.extend(model(snapshot));
    lines.extend(pool(snapshot));
    lines.extend(credentials(workers));
    let columns = table::columns(80);
    lines.extend([String::new(), table::headings(&columns)]);
    lines.extend(workers.iter().map(|worker| table::row(&columns, worker)));
    lines.extend(balancers(workers));
    lines.push(String::new());
    lines.extend(distribution::lines(&snapshot.by_slot(|served| served.connections), "connections"));
    let exits = group_slots(workers, |worker| Some(format!("last exit: {}", worker.last_exit.as_ref()?)));
    if !exits.is_empty() {
        lines.push(String::new());
        lines.extend(exits.iter().map(name_slots));
    }
    lines
}

/// Which client comes through which balancer.
fn balancers(workers: &[Worker]) -> Vec<String> {
    const ROOM: usize = 28;
    let clients = group_slots(workers, |worker| {
        let [client, via] = [worker.peer?, worker.via?].map(|address| format::address(address, ROOM));
        Some(format!("client {client} via {via}"))
    });
    clients.iter().map(name_slots).collect()
}

/// How the workers serve, if not one client at a time.
fn model(snapshot: &Snapshot) -> Option<String> {
    let Snapshot { model, clients_per_worker: most, .. } = snapshot;
    let clients = count(snapshot.clients(), "client");
    let threads = count(model.threads(*most) as u64, "thread");
    (*model != Model::Process).then(|| {
        format!("model {}: {threads} and up to {most} clients a worker; now {}", model.name(), clients)
    })
}

/// How many workers there are, if their number changes by itself.
fn pool(snapshot: &Snapshot) -> Option<String> {
    let Pool { min, max, now } = snapshot.pool;
    let workers = count(now as u64, "worker");
    (min != max).then(|| format!("pool: {workers} now, {min} to {max} as clients need them"))
}

/// The workers' user and sandbox: one line, unless they differ. The user is a number: the
/// parent logs this too, and must not wait for a name service.
fn credentials(workers: &[Worker]) -> Vec<String> {
    let groups = group_slots(workers, |worker| {
        Some(format!("workers' user id: {}; sandbox: {}", worker.uid?, worker.sandbox?))
    });
    match groups.len() {
        1 => groups.into_keys().collect(),
        _ => groups.iter().map(name_slots).collect(),
    }
}

/// The slots, grouped by what `text` says of their workers.
fn group_slots(workers: &[Worker], text: impl Fn(&Worker) -> Option<String>) -> BTreeMap<String, Vec<usize>> {
    let mut groups = BTreeMap::<_, Vec<_>>::new();
    for worker in workers {
        if let Some(text) = text(worker) {
            groups.entry(text).or_default().push(worker.slot);
        }
    }
    groups
}

/// Adds "(slots 0, 1 and 2 more)": as many as the line has room for, and one at least.
fn name_slots((text, slots): (&String, &Vec<usize>)) -> String {
    let room = 80_usize.saturating_sub(text.len() + " (slots  and 4096 more)".len());
    let (named, rest) = slots.split_at(slots.len().min((room / ", 4095".len()).max(1)));
    let names: Vec<_> = named.iter().map(usize::to_string).collect();
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    let noun = if slots.len() == 1 { "slot" } else { "slots" };
    format!("{text} ({noun} {}{more})", names.join(", "))
}
