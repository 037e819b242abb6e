//! Page 3: how evenly the kernel spreads the connections over the workers, and how much is
//! served a second.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use ratatui::style::Stylize;
use ratatui::text::Line;

use super::{Room, TopView, connections, draw, wrap};
use crate::language::{fill, tr};
use crate::monitor::top::history::Rate;
use crate::monitor::{distribution, format};
use crate::scoreboard::Served;
use crate::scoreboard::snapshot::Totals;

/// So many bars are on a page without a limit, at the most.
const MOST_BARS: usize = 64;

/// The page.
pub(super) fn lines(view: &TopView, room: Room) -> Vec<Line<'static>> {
    let low = rates(view, room.width, 1).len();
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
    // A bar for each worker first, then higher curves.
    let height = room.height.unwrap_or(MOST_BARS + 24);
    let left = height.saturating_sub(lines.len() + evenness.len() + 2 + low);
    lines.extend(bars(&by_slot, left.max(1), room.width));
    lines.extend(evenness);
    lines.push(Line::default());
    let left = height.saturating_sub(lines.len() + low) / 2;
    lines.extend(rates(view, room.width, if room.height.is_some() { 1 + left.min(5) } else { 1 }));
    lines
}

/// A bar for each slot, or for each group of slots.
fn bars(by_slot: &BTreeMap<usize, u64>, most_bars: usize, width: usize) -> Vec<Line<'static>> {
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

/// How much a second, now and before, as curves `high` lines high, and how much in all.
fn rates(view: &TopView, width: usize, high: usize) -> Vec<Line<'static>> {
    let Totals { served, restarts, .. } = view.snapshot.totals;
    let Served { bytes, .. } = served;
    let room = width.saturating_sub(4);
    let curve = |text: &'static str, value: fn(&Rate) -> f64| {
        let mut values: Vec<f64> = view.history.rates().rev().take(room).map(|rate| value(&rate)).collect();
        values.resize(room, 0.0);
        values.reverse();
        let most = values.iter().copied().fold(0.0, f64::max);
        let now = view.history.rates().next_back().map_or("-".into(), |rate| format::fraction(value(&rate)));
        let heading = fill(text, &[("now", &now), ("most", &format::fraction(most))]);
        let lines = draw::curve(&values, high).into_iter().map(|line| Line::raw(format!("  {line}")).green());
        [Line::raw(format!(" {heading}")).cyan()].into_iter().chain(lines).collect::<Vec<_>>()
    };
    let total = fill(
        tr("In all {connections}, {bytes} bytes; workers replaced: {restarts}."),
        &[
            ("connections", &connections(served.connections)),
            ("bytes", &format::number(bytes)),
            ("restarts", &restarts),
        ],
    );
    let mut lines = curve(tr("Connections a second: {now} now, {most} at most"), |rate| rate.connections);
    lines.extend(curve(tr("Bytes a second: {now} now, {most} at most"), |rate| rate.bytes));
    lines.extend(wrap(&total, width).into_iter().map(Line::raw));
    lines
}
