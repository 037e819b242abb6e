//! What has been measured, for people and for programs.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::stats::Stats;
use crate::client::stream::Kind;
use crate::config::{BenchOptions, Mode};
use crate::monitor::distribution::Distribution;
use crate::monitor::format;
use crate::scoreboard::snapshot::Snapshot;
use crate::text::count;

/// So many lines of a histogram are still taken in at a glance.
const MOST_LINES: usize = 16;

/// How wide the longest bar of the histogram is, in characters.
const BAR: usize = 40;

/// So many connections one address can open to another in a second before it gets slow.
/// Linux has 28,232 ports for that (ip(7), ip_local_port_range), and connect prefers
/// every second one; when those are all in use, each call looks through them in vain.
const MOST_PORTS: u64 = 14_000;

/// Where lines of a histogram begin in each power of ten: ten steps that look the
/// same on a logarithmic scale (ISO 3, R10), or some of them.
const STEPS: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];

/// The result of a run.
pub struct Report<'a> {
    pub options: &'a BenchOptions,
    pub stats: &'a Stats,
    /// From the first message to the last answer.
    pub elapsed: Duration,
    /// Payloads that each worker has answered, if the server is ours.
    pub by_worker: Option<Distribution>,
}

/// The messages of `size` bytes that each worker has answered between two looks. None:
/// some have left with their slots (TTOU), and what they had served is nobody's now.
pub fn by_worker(before: &Snapshot, after: &Snapshot, size: usize) -> Option<Distribution> {
    let bytes = |look: &Snapshot| look.by_slot(|served| served.bytes).0;
    let mut earlier = bytes(before).into_iter();
    let since = |bytes: u64| bytes.saturating_sub(earlier.next().unwrap_or(0));
    let since: Vec<u64> = bytes(after).into_iter().map(since).collect();
    let all = after.served.bytes.saturating_sub(before.served.bytes);
    (since.iter().sum::<u64>() == all)
        .then(|| Distribution(since.into_iter().map(|bytes| bytes / size as u64).collect()))
}

impl Report<'_> {
    fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() { 0.0 } else { self.stats.messages() as f64 / self.elapsed.as_secs_f64() }
    }

    fn mb_per_second(&self) -> f64 {
        self.per_second() * self.options.size as f64 / 1e6
    }

    /// For people; something at least must have come back.
    pub fn text(&self) -> String {
        let BenchOptions { connections, rate, .. } = self.options;
        let connections = match (self.options.mode, *connections) {
            (Mode::Keep, number) => format!("{} kept open", count(number.into(), "connection")),
            (Mode::Connect, number) => format!("a connection a message, {number} at once"),
            (Mode::Stream, number) => format!("{} streaming both ways", count(number.into(), "connection")),
        };
        let asked = rate.map_or(String::new(), |rate| format!(" ({rate} asked for)"));
        let mut lines = vec![
            format!(
                "{}: {connections}, messages of {}",
                self.options.server,
                count(self.options.size as u64, "byte")
            ),
            format!(
                "{} came back in {}: {:.0} a second{asked}, {:.2} MB/s each way",
                count(self.stats.messages(), "message"),
                format::latency(self.elapsed),
                self.per_second(),
                self.mb_per_second()
            ),
            self.errors(),
        ];
        lines.extend([String::new(), self.quantiles(), String::new()]);
        lines.extend(histogram(&self.stats.latencies));
        if self.options.mode == Mode::Connect && self.stats.messages() > MOST_PORTS {
            lines.push(format!(
                "\nafter some {MOST_PORTS} connections the kernel may lack ports, and that is measured as \
                 well:\nit keeps those of closed connections for a while (TIME_WAIT); \
                 -n {MOST_PORTS} avoids that"
            ));
        }
        if let Some(by_worker) = &self.by_worker {
            lines.push(String::new());
            lines.extend(by_worker.lines("messages answered"));
            let workers = by_worker.0.len();
            if self.options.mode != Mode::Connect && usize::from(self.options.connections) > workers {
                lines.push(format!(
                    "each of the {} serves one connection at a time; others wait in the accept queue",
                    count(workers as u64, "worker")
                ));
            }
        }
        lines.join("\n")
    }

    fn errors(&self) -> String {
        let kinds = [
            (Kind::Wrong, "wrong"),
            (Kind::Lost, "lost"),
            (Kind::Refused, "refused"),
            (Kind::Reset, "reset"),
            (Kind::Timeout, "timed out"),
            (Kind::Other, "failed here"),
        ];
        let mut named: Vec<_> = kinds
            .map(|(kind, name)| (self.stats.errors(kind), name))
            .iter()
            .filter(|(number, _)| *number > 0)
            .map(|(number, name)| format!("{number} {name}"))
            .collect();
        let never = self.never_sent();
        if never > 0 {
            named.push(format!("{never} never sent"));
        }
        match named.is_empty() {
            false => format!("errors: {}", named.join(", ")),
            true => "errors: none; every byte was right".into(),
        }
    }

    /// Payloads that were to be sent, and weren't: their clients had given up.
    fn never_sent(&self) -> u64 {
        let BenchOptions { messages, rate, .. } = self.options;
        let due = |rate: u32| self.options.duration.map(|time| time.as_secs_f64() * f64::from(rate));
        let wanted = messages.or(rate.and_then(due).map(|due| due as u64)).unwrap_or(0);
        let done = self.stats.messages() + self.stats.failures();
        if self.stats.interrupted.is_some() { 0 } else { wanted.saturating_sub(done) }
    }

    fn quantiles(&self) -> String {
        let latencies = &self.stats.latencies;
        let at = |quantile| format::latency(Duration::from_nanos(latencies.value_at_quantile(quantile)));
        let most = format::latency(Duration::from_nanos(latencies.max()));
        format!(
            "latency: p50 {}, p90 {}, p99 {}, p99.9 {}, max {most}",
            at(0.5),
            at(0.9),
            at(0.99),
            at(0.999)
        )
    }

    /// One line, for programs.
    pub fn json(&self) -> String {
        let latencies = &self.stats.latencies;
        let at = |quantile| micros(latencies, latencies.value_at_quantile(quantile));
        let json = Json {
            mode: self.options.mode,
            connections: self.options.connections,
            size: self.options.size,
            messages: self.stats.messages(),
            elapsed_s: rounded(self.elapsed.as_secs_f64(), 1e6),
            per_second: rounded(self.per_second(), 10.0),
            mb_per_second: rounded(self.mb_per_second(), 1e3),
            latency_us: Latency {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: micros(latencies, latencies.max()),
            },
            errors: Errors {
                wrong: self.stats.errors(Kind::Wrong),
                lost: self.stats.errors(Kind::Lost),
                refused: self.stats.errors(Kind::Refused),
                reset: self.stats.errors(Kind::Reset),
                timeout: self.stats.errors(Kind::Timeout),
                other: self.stats.errors(Kind::Other),
            },
            by_worker: self.by_worker.as_ref().map(|by_worker| by_worker.0.as_slice()),
        };
        serde_json::to_string(&json).expect("numbers and texts can be written as JSON")
    }
}

/// None, where nothing was measured.
fn micros(latencies: &Histogram<u64>, nanos: u64) -> Option<f64> {
    (!latencies.is_empty()).then(|| rounded(nanos as f64 / 1e3, 10.0))
}

fn rounded(number: f64, parts: f64) -> f64 {
    (number * parts).round() / parts
}

/// A line for each span of latencies, as long as there are many in it.
fn histogram(latencies: &Histogram<u64>) -> Vec<String> {
    // The few beyond would take most of the lines: they share the last one.
    let last = latencies.value_at_quantile(0.999);
    let starts = starts(latencies.min(), last);
    let all = latencies.len() as f64;
    let mut counts = vec![0_u64; starts.len()];
    for recorded in latencies.iter_recorded() {
        let line = starts.partition_point(|start| *start <= recorded.value_iterated_to());
        counts[line.saturating_sub(1)] += recorded.count_since_last_iteration();
    }
    let most = *counts.iter().max().unwrap_or(&0) as f64;
    let line = |(start, number): (&u64, &u64)| {
        let (share, bar) = (*number as f64 / all * 100.0, format::bar(*number as f64, most, BAR));
        format!("  from {:>7} {share:5.1} % {bar}", format::latency(Duration::from_nanos(*start)))
    };
    starts.iter().zip(&counts).map(line).collect()
}

/// Where the lines begin that show all from `least` to `last` nanoseconds.
fn starts(least: u64, last: u64) -> Vec<u64> {
    let steps =
        (0..19).flat_map(|power| STEPS.iter().map(move |step| step.saturating_mul(10_u64.pow(power))));
    let steps: Vec<u64> = steps.collect();
    let every = |every: usize| -> Vec<u64> {
        let coarse: Vec<u64> = steps.iter().copied().step_by(every).collect();
        let first = coarse.iter().rposition(|start| *start <= least).unwrap_or(0);
        let end = coarse.iter().rposition(|start| *start <= last).unwrap_or(0);
        coarse[first..=end.max(first)].to_vec()
    };
    let choices = [1, 2, 5, 10].map(every);
    let [.., coarsest] = &choices;
    choices.iter().find(|starts| starts.len() <= MOST_LINES).unwrap_or(coarsest).clone()
}

// The JSON: programs rely on these names.

#[derive(Serialize)]
struct Json<'a> {
    mode: Mode,
    connections: u16,
    size: usize,
    messages: u64,
    elapsed_s: f64,
    per_second: f64,
    mb_per_second: f64,
    latency_us: Latency,
    errors: Errors,
    by_worker: Option<&'a [u64]>,
}

#[derive(Serialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
    p999: Option<f64>,
    max: Option<f64>,
}

#[derive(Serialize)]
struct Errors {
    wrong: u64,
    lost: u64,
    refused: u64,
    reset: u64,
    timeout: u64,
    /// Only where there is any: what is wrong is on our side.
    #[serde(skip_serializing_if = "is_none")]
    other: u64,
}

fn is_none(number: &u64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_begin_at_round_numbers() {
        assert_eq!(starts(12_600, 41_000), [12_500, 16_000, 20_000, 25_000, 31_500, 40_000]);
        // Over three powers of ten ten lines each would be too many.
        let long = [1_000, 1_600, 2_500, 4_000, 6_300, 10_000, 16_000, 25_000, 40_000, 63_000, 100_000];
        assert_eq!(starts(1_200, 120_000), long);
    }

    #[test]
    fn who_is_beyond_the_last_line_is_in_it() {
        let mut latencies = Histogram::new(3).unwrap();
        latencies.record_n(20_000, 9_990).unwrap();
        latencies.record_n(3_000_000_000, 10).unwrap();
        let lines = histogram(&latencies);
        assert_eq!(lines, [format!("  from 20.0 µs 100.0 % {}", "█".repeat(BAR))]);
        latencies.record_n(2_000_000, 4_990).unwrap();
        let lines = histogram(&latencies);
        assert!(lines.len() <= MOST_LINES && lines[0].contains(" 66.6 % "), "{lines:#?}");
        assert!(lines.last().unwrap().starts_with("  from 1.60 ms  33.4 % "), "{lines:#?}");
    }

    proptest! {
        #[test]
        fn a_histogram_is_complete_and_short(mut samples in prop::collection::vec(1..10_u64.pow(13), 1..200)) {
            let mut latencies = Histogram::<u64>::new(3).unwrap();
            samples.iter().for_each(|sample| latencies.record(*sample).unwrap());
            let lines = histogram(&latencies);
            prop_assert!((1..=MOST_LINES).contains(&lines.len()), "{lines:#?}");
            let share = |line: &String| line[..line.find(" %").unwrap()].rsplit(' ').next().unwrap().parse::<f64>();
            let shares = lines.iter().map(|line| share(line).unwrap()).sum::<f64>();
            prop_assert!((shares - 100.0).abs() < 0.06 * lines.len() as f64, "{lines:#?}");
            samples.sort();
            let starts = starts(samples[0], samples[samples.len() - 1]);
            prop_assert!(starts.is_sorted() && starts[0] <= samples[0].max(100), "{starts:?} {samples:?}");
        }
    }
}
