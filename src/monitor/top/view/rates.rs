//! Page 3: how evenly the kernel spreads the connections over the workers, and how much is
//! served a second.

use std::ops::RangeInclusive;

use ratatui::style::Stylize;
use ratatui::text::Line;

use super::{Room, TopView, connections, draw, wrap};
use crate::language::{fill, tr};
use crate::monitor::top::history::Rate;
use crate::monitor::{distribution, format};
use crate::scoreboard::Served;
use crate::scoreboard::snapshot::Totals;

/// The page.
pub(super) fn lines(view: &TopView, room: Room) -> Vec<Line<'static>> {
    const BARS: usize = 16;
    let rates = rates(view, room.width);
    let by_slot = view.snapshot.by_slot(|served| served.connections);
    let mut lines: Vec<_> = wrap(tr("How many connections the kernel gave to each worker:"), room.width)
        .into_iter()
        .map(|line| Line::raw(line).cyan())
        .collect();
    lines.push(Line::default());
    let evenness = match distribution::skew(&by_slot) {
        Some(ratio) => {
            let ratio = format!("{ratio:.2}");
            fill(tr("The busiest has {ratio} times the mean; 1.00 is even."), &[("ratio", &ratio)])
        }
        None => tr("No client has come yet.").to_owned(),
    };
    let evenness = wrap(&evenness, room.width).into_iter().map(Line::raw);
    let height = room.height.unwrap_or(usize::MAX);
    let left = height.saturating_sub(lines.len() + evenness.len() + 2 + rates.len());
    lines.extend(bars(&by_slot, left.clamp(1, BARS.max(left.min(40))), room.width));
    lines.extend(evenness);
    lines.push(Line::default());
    lines.extend(rates);
    lines
}

/// A bar for each slot, or for each group of slots.
fn bars(by_slot: &[u64], most_bars: usize, width: usize) -> Vec<Line<'static>> {
    let groups = distribution::by_group(by_slot, most_bars);
    let most = groups.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
    let name = |slots: &RangeInclusive<usize>| match slots.start() == slots.end() {
        true => fill(tr("worker {n}"), &[("n", slots.start())]),
        false => {
            let (first, last) = (slots.start(), slots.end());
            fill(tr("workers {first} to {last}, mean"), &[("first", first), ("last", last)])
        }
    };
    let names: Vec<String> = groups.iter().map(|(slots, _)| name(slots)).collect();
    let name_width = names.iter().map(|name| draw::width(name)).max().unwrap_or(0);
    let bar_width = width.saturating_sub(name_width + 12);
    let bar = |((_, mean), name): (&(RangeInclusive<usize>, f64), &String)| {
        let bar = format::bar(*mean, most, bar_width);
        Line::raw(format!("  {} {bar} {}", draw::left(name, name_width), format::fraction(*mean))).blue()
    };
    groups.iter().zip(&names).map(bar).collect()
}

/// How much a second, now and before, and how much in all.
fn rates(view: &TopView, width: usize) -> Vec<Line<'static>> {
    let Totals { served, restarts } = view.snapshot.totals;
    let Served { bytes, .. } = served;
    let last = view.history.rates().next_back();
    let room = width.saturating_sub(4);
    let spark = |value: fn(&Rate) -> f64| {
        let mut values: Vec<f64> = view.history.rates().rev().take(room).map(|rate| value(&rate)).collect();
        values.reverse();
        let values = vec![0.0; room - values.len().min(room)].into_iter().chain(values);
        Line::raw(format!("  {}", draw::sparkline(values.collect::<Vec<_>>().into_iter()))).green()
    };
    let now = |value: fn(&Rate) -> f64| last.map_or("-".into(), |rate| format::fraction(value(&rate)));
    let (connections_now, bytes_now) = (now(|rate| rate.connections), now(|rate| rate.bytes));
    let total = fill(
        tr("In all {connections}, {bytes} bytes; {restarts} workers replaced."),
        &[
            ("connections", &connections(served.connections)),
            ("bytes", &format::number(bytes)),
            ("restarts", &restarts),
        ],
    );
    let mut lines = vec![
        Line::raw(fill(tr(" Connections a second: {n}"), &[("n", &connections_now)])).cyan(),
        spark(|rate| rate.connections),
        Line::raw(fill(tr(" Bytes a second: {n}"), &[("n", &bytes_now)])).cyan(),
        spark(|rate| rate.bytes),
    ];
    lines.extend(wrap(&total, width).into_iter().map(Line::raw));
    lines
}
