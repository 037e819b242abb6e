//! What has been measured, for people and for programs.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

use super::histogram;
use super::stats::Stats;
use crate::client::Kind;
use crate::config::{BenchOptions, Mode};
use crate::error::Error;
use crate::monitor::{distribution, format};
use crate::scoreboard::snapshot::Snapshot;
use crate::text::{self, count};

/// So many connections one address can open to another in a second before it gets slow.
/// Linux has 28,232 ports for that (ip(7), ip_local_port_range), and connect prefers
/// every second one; when those are all in use, each call looks through them in vain.
const MOST_PORTS: u64 = 14_000;

/// The quantiles that are reported, in the order in which they are.
const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

/// Those of the time until a connection was served.
const WAIT_QUANTILES: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("max", 1.0)];

/// The errors that are reported, in the order in which they are, with their names in the text.
const ERRORS: [(Kind, &str); 6] = [
    (Kind::Wrong, "wrong"),
    (Kind::Lost, "lost"),
    (Kind::Refused, "refused"),
    (Kind::Reset, "reset"),
    (Kind::Timeout, "timed out"),
    (Kind::Other, "failed here"),
];

/// The result of a run.
pub(super) struct Report<'a> {
    pub(super) options: &'a BenchOptions,
    pub(super) stats: &'a Stats,
    /// From the first message to the last answer.
    pub(super) elapsed: Duration,
    /// Messages that each worker has answered, if the server's scoreboard could be read.
    pub(super) by_worker: Option<BTreeMap<usize, u64>>,
    /// How many connections each worker serves at once.
    pub(super) clients_per_worker: usize,
}

/// The messages of `size` bytes that each worker has answered between two snapshots.
/// None: some workers have left with their slots (TTOU), and what they had served belongs
/// to no slot now.
pub(super) fn by_worker(before: &Snapshot, after: &Snapshot, size: usize) -> Option<BTreeMap<usize, u64>> {
    let bytes = |snapshot: &Snapshot| snapshot.by_slot(|served| served.bytes);
    let earlier = bytes(before);
    let since =
        |(slot, bytes): (usize, u64)| (slot, bytes.saturating_sub(earlier.get(&slot).copied().unwrap_or(0)));
    let since: BTreeMap<usize, u64> = bytes(after).into_iter().map(since).collect();
    let all = after.totals.served.bytes.saturating_sub(before.totals.served.bytes);
    (since.values().sum::<u64>() == all)
        .then(|| since.into_iter().map(|(slot, bytes)| (slot, bytes / size as u64)).collect())
}

impl Report<'_> {
    /// Prints it as the user asked for. Where nothing came back, the errors say all that
    /// the text would.
    pub(super) fn print(&self) -> Result<(), Error> {
        match self.options.json {
            true => text::print(&self.json()),
            false if self.stats.messages() == 0 => Ok(()),
            false => text::print(&self.text()),
        }
    }

    fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.stats.messages() as f64 / self.elapsed.as_secs_f64() }
    }

    fn mb_per_second(&self) -> f64 {
        self.per_second() * self.options.size as f64 / 1e6
    }

    fn text(&self) -> String {
        let mut paragraphs = vec![
            [self.setting(), self.rate(), self.errors(), self.accepted()].join("\n"),
            format!("latency: {}", told(&self.stats.latencies, &QUANTILES)),
            histogram::lines(&self.stats.latencies).join("\n"),
        ];
        if self.options.mode == Mode::Connect && self.stats.messages() > MOST_PORTS {
            paragraphs.push(format!(
                "after some {MOST_PORTS} connections the kernel may lack ports, and that is measured as \
                 well:\nit keeps those of closed connections for a while (TIME_WAIT); \
                 -n {MOST_PORTS} avoids that"
            ));
        }
        if let Some(by_worker) = &self.by_worker {
            let mut lines = distribution::lines(by_worker, "messages answered");
            let (workers, each) = (by_worker.len(), self.clients_per_worker);
            if self.options.mode != Mode::Connect && usize::from(self.options.connections) > workers * each {
                let each = if each == 1 {
                    "one connection at a time".into()
                } else {
                    format!("{each} connections at once")
                };
                let workers = count(workers as u64, "worker");
                lines.push(format!("each of the {workers} serves {each}; others wait in the accept queue"));
            }
            paragraphs.push(lines.join("\n"));
        }
        paragraphs.join("\n\n")
    }

    fn setting(&self) -> String {
        let BenchOptions { server, connections, .. } = self.options;
        let number = count((*connections).into(), "connection");
        let connections = match self.options.mode {
            Mode::Keep => format!("{number} kept open"),
            Mode::Connect => format!("a connection a message, {connections} at once"),
            Mode::Stream => format!("{number} streaming both ways"),
        };
        let size = count(self.options.size as u64, "byte");
        format!("{}: {connections}, messages of {size}", server.address)
    }

    fn rate(&self) -> String {
        let asked = self.options.rate.map_or(String::new(), |rate| format!(" ({rate} asked for)"));
        format!(
            "{} came back in {}: {:.0} a second{asked}, {:.2} MB/s each way",
            count(self.stats.messages(), "message"),
            format::latency(self.elapsed),
            self.per_second(),
            self.mb_per_second()
        )
    }

    fn errors(&self) -> String {
        let failed = ERRORS.map(|(kind, name)| (self.stats.errors(kind), name));
        let numbers = failed.into_iter().chain([(self.never_sent(), "never sent")]);
        let named: Vec<_> = numbers
            .filter(|(number, _)| *number > 0)
            .map(|(number, name)| format!("{number} {name}"))
            .collect();
        match named.is_empty() {
            false => format!("errors: {}", named.join(", ")),
            true => "errors: none; every byte was right".into(),
        }
    }

    /// How many connections a worker accepted, and how long they had waited for their first
    /// byte. Those that it never accepted are in no percentile.
    fn accepted(&self) -> String {
        let Stats { waits, unanswered, .. } = self.stats;
        let whose = match unanswered {
            0 => "all connections were accepted and".into(),
            never => {
                let all = count(waits.len() + never, "connection");
                format!("{never} of {all} were never accepted (no byte came back); the others")
            }
        };
        format!("{whose} waited {}", told(waits, &WAIT_QUANTILES))
    }

    /// Messages that were to be sent, and weren't, because their clients had given up.
    fn never_sent(&self) -> u64 {
        let BenchOptions { messages, rate, .. } = self.options;
        let due = |rate: u32| self.options.duration.map(|time| time.as_secs_f64() * f64::from(rate));
        let wanted = messages.or(rate.and_then(due).map(|due| due as u64)).unwrap_or(0);
        let done = self.stats.messages() + self.stats.failures();
        if self.stats.interrupted.is_some() { 0 } else { wanted.saturating_sub(done) }
    }

    /// One line, for programs.
    fn json(&self) -> String {
        // The kind Other is told only if it occurred: what is wrong is on this machine.
        let told = |(kind, number): &(Kind, u64)| *kind != Kind::Other || *number > 0;
        let json = Json {
            mode: self.options.mode,
            connections: self.options.connections,
            size: self.options.size,
            messages: self.stats.messages(),
            elapsed_s: rounded(self.elapsed.as_secs_f64(), 1e6),
            per_second: rounded(self.per_second(), 10.0),
            mb_per_second: rounded(self.mb_per_second(), 1e3),
            latency_us: QUANTILES
                .map(|(name, quantile)| (name.replace('.', ""), micros(&self.stats.latencies, quantile)))
                .into(),
            errors: ERRORS
                .map(|(kind, _)| (kind, self.stats.errors(kind)))
                .into_iter()
                .filter(told)
                .collect(),
            accept: Accept {
                never: self.stats.unanswered,
                wait_p50_us: micros(&self.stats.waits, 0.5),
                wait_p99_us: micros(&self.stats.waits, 0.99),
                wait_max_us: micros(&self.stats.waits, 1.0),
            },
            by_worker: self.by_worker.as_ref().map(|slots| slots.values().copied().collect()),
        };
        serde_json::to_string(&json).expect("numbers and texts can be written as JSON")
    }
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// The JSON. Programs rely on these names.
#[derive(Serialize)]
struct Json {
    mode: Mode,
    connections: u16,
    size: usize,
    messages: u64,
    elapsed_s: f64,
    per_second: f64,
    mb_per_second: f64,
    /// Each is null if nothing was measured.
    #[serde(serialize_with = "in_order")]
    latency_us: Vec<(String, Option<f64>)>,
    #[serde(serialize_with = "in_order")]
    errors: Vec<(Kind, u64)>,
    accept: Accept,
    by_worker: Option<Vec<u64>>,
}

/// Its names are none that stand elsewhere: scripts look for those without parsing.
#[derive(Serialize)]
struct Accept {
    never: u64,
    wait_p50_us: Option<f64>,
    wait_p99_us: Option<f64>,
    wait_max_us: Option<f64>,
}

/// The quantiles of `times` in nanoseconds, each with its name, for people.
fn told(times: &Histogram<u64>, quantiles: &[(&str, f64)]) -> String {
    let time = |quantile| format::latency(Duration::from_nanos(times.value_at_quantile(quantile)));
    let each = quantiles.iter().map(|(name, quantile)| format!("{name} {}", time(*quantile)));
    each.collect::<Vec<_>>().join(", ")
}

/// A quantile in microseconds.
fn micros(times: &Histogram<u64>, quantile: f64) -> Option<f64> {
    (!times.is_empty()).then(|| rounded(times.value_at_quantile(quantile) as f64 / 1e3, 10.0))
}

/// Writes a JSON object whose names stand in the order of the pairs.
fn in_order<S: Serializer>(
    pairs: &[(impl Serialize, impl Serialize)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(pairs.iter().map(|(name, value)| (name, value)))
}
