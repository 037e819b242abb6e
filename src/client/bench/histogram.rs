//! The latencies as bars: a line for each span of time, as long as there are many in it.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::monitor::format;

/// So many lines are still taken in at a glance.
const MOST_LINES: usize = 16;

/// How wide the longest bar is, in characters.
const BAR: usize = 40;

/// Where lines begin in each power of ten: ten steps that look the same on a logarithmic
/// scale (ISO 3, R10), or some of them.
const STEPS: [u64; 10] = [100, 125, 160, 200, 250, 315, 400, 500, 630, 800];

/// The lines for latencies in nanoseconds.
pub(super) fn lines(latencies: &Histogram<u64>) -> Vec<String> {
    // The few beyond would take most of the lines: they share the last one.
    let last = latencies.value_at_quantile(0.999);
    let starts = starts(latencies.min(), last);
    let mut counts = vec![0_u64; starts.len()];
    for recorded in latencies.iter_recorded() {
        let line = starts.partition_point(|start| *start <= recorded.value_iterated_to());
        counts[line.saturating_sub(1)] += recorded.count_since_last_iteration();
    }
    let (all, most) = (latencies.len() as f64, counts.iter().copied().max().unwrap_or(0) as f64);
    let line = |(start, number): (&u64, &u64)| {
        let (share, bar) = (*number as f64 / all * 100.0, format::bar(*number as f64, most, BAR));
        format!("  from {:>7} {share:5.1} % {bar}", format::latency(Duration::from_nanos(*start)))
    };
    starts.iter().zip(&counts).map(line).collect()
}

/// Where the lines begin that show all from `least` to `last` nanoseconds: at all steps
/// between them, or at so few of these that the lines are not too many.
fn starts(least: u64, last: u64) -> Vec<u64> {
    let scale = (0..19).map(|power| 10_u64.pow(power));
    let steps: Vec<u64> = scale.flat_map(|scale| STEPS.map(|step| step.saturating_mul(scale))).collect();
    let every = |every: usize| -> Vec<u64> {
        let steps = steps.iter().copied().step_by(every);
        let first = steps.clone().rfind(|start| *start <= least).unwrap_or(STEPS[0]);
        steps.filter(|start| (first..=last.max(first)).contains(start)).collect()
    };
    [1, 2, 5].map(every).into_iter().find(|starts| starts.len() <= MOST_LINES).unwrap_or_else(|| every(10))
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
    fn latencies_beyond_the_last_line_are_in_it() {
        let mut latencies = Histogram::new(3).unwrap();
        latencies.record_n(20_000, 9_990).unwrap();
        latencies.record_n(3_000_000_000, 10).unwrap();
        let lines = super::lines(&latencies);
        assert_eq!(lines, [format!("  from 20.0 µs 100.0 % {}", "█".repeat(BAR))]);
        latencies.record_n(2_000_000, 4_990).unwrap();
        let lines = super::lines(&latencies);
        assert!(lines.len() <= MOST_LINES && lines[0].contains(" 66.6 % "), "{lines:#?}");
        assert!(lines.last().unwrap().starts_with("  from 1.60 ms  33.4 % "), "{lines:#?}");
    }

    proptest! {
        #[test]
        fn a_histogram_is_complete_and_short(mut samples in prop::collection::vec(1..10_u64.pow(13), 1..200)) {
            let mut latencies = Histogram::<u64>::new(3).unwrap();
            samples.iter().for_each(|sample| latencies.record(*sample).unwrap());
            let lines = super::lines(&latencies);
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
