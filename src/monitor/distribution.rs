//! How evenly something is spread over the slots: in numbers, and as bars. `status`, `top`
//! and `bench` show it.

use std::ops::RangeInclusive;

use crate::monitor::format;

/// The most bars: with more slots, a bar stands for a group of them.
const MOST_BARS: usize = 16;

/// How wide the longest bar is, in characters.
const BAR: usize = 50;

/// A number for each slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution(pub Vec<u64>);

impl Distribution {
    /// The slots in so many groups at the most: those of each, and their mean.
    pub fn by_group(&self, most: usize) -> Vec<(RangeInclusive<usize>, f64)> {
        let size = self.0.len().div_ceil(most.max(1)).max(1);
        let mean =
            |slots: &[u64]| slots.iter().map(|number| *number as f64).sum::<f64>() / slots.len() as f64;
        let groups = self.0.chunks(size).enumerate();
        groups.map(|(index, slots)| (index * size..=index * size + slots.len() - 1, mean(slots))).collect()
    }

    /// The most of any slot by the mean of all; 1 is perfectly even. None where
    /// there is nothing.
    pub fn skew(&self) -> Option<f64> {
        let sum: f64 = self.0.iter().map(|number| *number as f64).sum();
        let most = self.0.iter().max()?;
        (sum > 0.0).then(|| *most as f64 * self.0.len() as f64 / sum)
    }

    /// A line that says `what` they are, and a bar for each slot, or for each group.
    pub fn lines(&self, what: &str) -> Vec<String> {
        let groups = self.by_group(MOST_BARS);
        let most = groups.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
        let is_single = |slots: &RangeInclusive<usize>| slots.start() == slots.end();
        let each =
            if groups.iter().all(|(slots, _)| is_single(slots)) { "" } else { ", the mean of each group" };
        let evenness = self.skew().map_or(String::new(), |ratio| format!(": max/mean {ratio:.2}"));
        let bar = |(slots, mean): &(RangeInclusive<usize>, f64)| {
            let name = match is_single(slots) {
                true => slots.start().to_string(),
                false => format!("{}-{}", slots.start(), slots.end()),
            };
            format!("{name:>9} {} {}", format::bar(*mean, most, BAR), format::fraction(*mean))
        };
        [format!("{what} by slot{each}{evenness}")].into_iter().chain(groups.iter().map(bar)).collect()
    }
}
