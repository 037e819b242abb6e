//! How evenly something is spread over the slots, of which each has a number: as numbers,
//! and as bars. `status`, `top` and `bench` show it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::monitor::format;

/// The most bars: with more slots, a bar stands for a group of them.
const MOST_BARS: usize = 16;

/// How wide the longest bar is, in characters.
const BAR: usize = 50;

/// The slots in so many groups at the most: those of each, and their mean.
pub fn by_group(by_slot: &BTreeMap<usize, u64>, most: usize) -> Vec<(RangeInclusive<usize>, f64)> {
    let size = by_slot.len().div_ceil(most.max(1)).max(1);
    let slots: Vec<(usize, u64)> = by_slot.iter().map(|(slot, number)| (*slot, *number)).collect();
    let mean = |group: &[(usize, u64)]| {
        group.iter().map(|(_, number)| *number as f64).sum::<f64>() / group.len() as f64
    };
    slots.chunks(size).map(|group| (group[0].0..=group[group.len() - 1].0, mean(group))).collect()
}

/// The most of any slot by the mean of all; 1 is perfectly even. None where there is nothing.
pub fn skew(by_slot: &BTreeMap<usize, u64>) -> Option<f64> {
    let sum: f64 = by_slot.values().map(|number| *number as f64).sum();
    let most = by_slot.values().max()?;
    (sum > 0.0).then(|| *most as f64 * by_slot.len() as f64 / sum)
}

/// A line that says `what` they are, and a bar for each slot, or for each group.
pub fn lines(by_slot: &BTreeMap<usize, u64>, what: &str) -> Vec<String> {
    let groups = by_group(by_slot, MOST_BARS);
    let most = groups.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
    let each = if groups.len() == by_slot.len() { "" } else { ", the mean of each group" };
    let evenness = skew(by_slot).map_or(String::new(), |ratio| format!(": max/mean {ratio:.2}"));
    let bar = |(slots, mean): &(RangeInclusive<usize>, f64)| {
        let name = match slots.start() == slots.end() {
            true => slots.start().to_string(),
            false => format!("{}-{}", slots.start(), slots.end()),
        };
        format!("{name:>9} {} {}", format::bar(*mean, most, BAR), format::fraction(*mean))
    };
    [format!("{what} by slot{each}{evenness}")].into_iter().chain(groups.iter().map(bar)).collect()
}
