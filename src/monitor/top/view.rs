//! The view that `top` shows: lines of text from a snapshot, and nothing else.
//!
//! It fits whatever room there is: the least important columns go from a narrow
//! terminal, sections from a low one, and the workers scroll.

mod help;

use std::time::Instant;

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use self::help::{HELP, KEYS};
use crate::config::Model;
use crate::monitor::{distribution, format, table};
use crate::scoreboard::snapshot::{PrivateCounter, Snapshot, Totals, Worker};
use crate::scoreboard::{Phase, State};
use crate::sys::process::ProcessState;
use crate::text::count;

/// What is to be seen.
#[derive(Debug, Clone)]
pub struct TopView {
    /// What the server is doing.
    pub snapshot: Snapshot,
    /// Connections and bytes a second, over the last seconds.
    pub rate: Option<Rate>,
    /// The worker that the keys are for, an index into the snapshot's.
    pub selected: usize,
    /// Does the view stand still?
    pub paused: bool,
    /// Is the explanation shown instead?
    pub help: bool,
    /// When a key has done something, and what.
    pub note: Option<(Instant, String)>,
    /// How the server has ended.
    pub end: Option<String>,
}

/// What was served a second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Connections a second.
    pub connections: f64,
    /// Bytes a second.
    pub bytes: f64,
}

impl TopView {
    /// The lines of the whole view: `height` of them at the most, each as wide
    /// as `width` at the most. No height: as many as it takes.
    pub fn lines(&self, width: usize, height: Option<usize>) -> Vec<Line<'static>> {
        let mut lines = vec![self.title(width)];
        if self.help {
            lines.extend(HELP.iter().map(|line| Line::raw(*line)));
        } else {
            lines.extend(self.body(width, height.map(|height| height.saturating_sub(2))));
        }
        if let Some(height) = height {
            lines.resize(height.saturating_sub(1), Line::default());
            lines.push(self.foot());
        }
        lines.into_iter().map(|line| fit(line, width)).collect()
    }

    fn title(&self, width: usize) -> Line<'static> {
        let Snapshot { version, address, phase, uptime, .. } = &self.snapshot;
        let state = match (&self.end, phase) {
            (None, Phase::Running) => format!("running for {}", format::span(*uptime)),
            (None, Phase::Draining) => format!("DRAINING, after {}", format::span(*uptime)),
            _ => "ENDED".into(),
        };
        let paused = if self.paused { "   PAUSED" } else { "" };
        let text = format!(" prefork-echo {version}   {address}   {state}{paused}");
        Line::raw(format!("{text:<width$}")).reversed().bold()
    }

    fn foot(&self) -> Line<'static> {
        match (&self.end, &self.note) {
            (Some(end), _) => Line::raw(format!(" {end}; press q")).red().bold(),
            (_, Some((_, note))) => Line::raw(format!(" {note}")).yellow(),
            _ => Line::raw(KEYS).dim(),
        }
    }

    /// What is between title and keys, in `room` lines; none: as many as it takes.
    fn body(&self, width: usize, room: Option<usize>) -> Vec<Line<'static>> {
        const FEW: usize = 4;
        let (head, workers) = (self.head(), self.snapshot.workers.len());
        // A few workers first; then each section, if the whole of it has room; what
        // is left goes to more workers and to more events.
        let mut left = room.unwrap_or(usize::MAX).saturating_sub(head.len() + 1);
        let mut take = |wanted: usize| {
            let fits = wanted <= left;
            left -= if fits { wanted } else { 0 };
            fits
        };
        let few = (0..=workers.min(FEW)).rev().find(|few| take(*few)).unwrap_or(0);
        let mut whole = |section: Vec<Line<'static>>| if take(section.len()) { section } else { Vec::new() };
        let counter = whole(self.counter());
        let mut events = whole(self.events(FEW));
        let distribution = whole(self.distribution(width));
        let more = left.min(workers - few);
        if !events.is_empty() {
            events = self.events((left - more).saturating_add(FEW));
        }
        [head, self.tree(width, few + more), counter, distribution, events].concat()
    }

    /// The way of a connection: the queue, the socket, and the parent that opened it.
    fn head(&self) -> Vec<Line<'static>> {
        let Snapshot { accept_queue, pid, parent, totals, model, workers, .. } = &self.snapshot;
        let Totals { served, restarts } = totals;
        let a_second = self.rate.map_or(String::new(), |Rate { connections, bytes }| {
            let [connections, bytes] = [connections, bytes].map(format::fraction);
            format!(" {connections} connections/s, {bytes} bytes/s;")
        });
        let connections = count(served.connections, "connection");
        let total = format!("{a_second} in all {connections}, {} bytes", format::number(served.bytes));
        let waiting = match accept_queue.length {
            None => "(this system doesn't tell how many wait)".into(),
            Some(0) => "none waiting".into(),
            // So few can be seen one by one.
            Some(few @ 1..=20) => format!("{} {few} waiting", "●".repeat(few as usize)).yellow(),
            Some(many) => format!("{}… {many} waiting", "●".repeat(20)).yellow().bold(),
        };
        let backlog = format!(" (backlog {})", accept_queue.limit).dim();
        let processes = workers.iter().filter(|worker| worker.state != State::Down);
        let busy = processes.clone().filter(|worker| worker.state.is_busy()).count();
        let processes = processes.count();
        let load = format!("{busy} of {} busy", count(processes as u64, "worker"));
        let (socket, load) = match model {
            Model::Process => (" → one listening socket, shared by all processes: ", load),
            _ => {
                let clients = count(self.snapshot.clients(), "client");
                (" → one listening socket: ", format!("model {}: {clients}, {load}", model.name()))
            }
        };
        let load = load.bold();
        let load = if busy > 0 && busy == processes { load.yellow() } else { load };
        let role = match parent {
            ProcessState::Stopped => "  STOPPED: no process reaps and replaces the workers".red(),
            _ => format!("  serves no client; forks the workers, has replaced {restarts}").into(),
        };
        vec![
            Line::raw(total).cyan(),
            Line::from(vec![" clients → accept queue: ".into(), waiting, backlog]),
            Line::from(vec![socket.into(), load]),
            Line::from(vec![format!(" parent {pid}").bold(), role]),
        ]
    }

    /// The tree: the headings, and as many workers as have room, the selected one
    /// among them.
    fn tree(&self, width: usize, room: usize) -> Vec<Line<'static>> {
        let workers = &self.snapshot.workers;
        let row_width = width.saturating_sub(4);
        let columns = table::columns(row_width);
        let mut lines = vec![Line::raw(format!("  │ {}", table::headings(&columns))).dim()];
        // Where some are hidden, the last line says so.
        let hidden = if (2..workers.len()).contains(&room) { workers.len() + 1 - room } else { 0 };
        let room = if hidden > 0 { room - 1 } else { room };
        // It scrolls by as little as it must.
        let selected = self.selected.min(workers.len().saturating_sub(1));
        let first = (selected + 1).saturating_sub(room);
        for (index, worker) in workers.iter().enumerate().skip(first).take(room) {
            let twig = if index + 1 == workers.len() { "└─" } else { "├─" };
            let mark = if index == selected { "▸" } else { " " };
            let row = table::row(&columns, worker);
            let line = Line::raw(format!("{mark} {twig}{row:<row_width$}")).fg(color(worker));
            lines.push(if index == selected { line.reversed() } else { line });
        }
        if hidden > 0 {
            lines.push(Line::raw(format!("  ⋮  {hidden} more: the arrows scroll")).dim());
        }
        lines
    }

    /// The lesson of separate address spaces.
    fn counter(&self) -> Vec<Line<'static>> {
        let Snapshot { private_counter, workers, totals, .. } = &self.snapshot;
        let by_each = workers.iter().filter_map(|worker| {
            let (slot, value) = (worker.slot, worker.private_counter?);
            // A worker that is leaving has a replacement in the same slot.
            Some(if worker.leaving { format!(" ({slot}={value})") } else { format!(" {slot}={value}") })
        });
        let by_each: String = by_each.collect();
        let PrivateCounter { address, parent } = private_counter;
        let by_all = totals.served.connections;
        vec![
            Line::default(),
            Line::raw(format!(" One variable, one address ({address}), another value in each process:")),
            Line::raw(format!("   clients counted by all, in shared memory: {by_all}")).cyan(),
            Line::raw(format!("   by each, in its own: parent {parent}, workers{by_each}")).bold(),
        ]
    }

    /// How the kernel has spread the connections over the slots.
    fn distribution(&self, width: usize) -> Vec<Line<'static>> {
        const LEVELS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];
        const WIDE: usize = 6;
        let room = width.saturating_sub(2).max(1);
        let by_slot = self.snapshot.by_slot(|served| served.connections);
        let bars = distribution::by_group(&by_slot, room);
        let most = bars.iter().map(|(_, mean)| *mean).fold(0.0, f64::max);
        let is_wide = bars.len() * (WIDE + 1) <= room;
        let (bar, gap) = if is_wide { (WIDE, " ") } else { (1, "") };
        let line = |of_two: usize| {
            let level = |value: f64| {
                let sixteenths = if most > 0.0 { (value / most * 16.0).ceil() as usize } else { 0 };
                LEVELS[sixteenths.saturating_sub(8 * of_two).min(8)].repeat(bar) + gap
            };
            Line::raw(format!("  {}", bars.iter().map(|(_, mean)| level(*mean)).collect::<String>())).blue()
        };
        let evenness = match distribution::skew(&by_slot) {
            Some(ratio) => format!("the most are {ratio:.2} times the mean"),
            None => "no client has come yet".into(),
        };
        let mut lines = vec![Line::raw(format!(" Connections by slot: {evenness}")), line(1), line(0)];
        if is_wide {
            let values = bars.iter().map(|(_, mean)| format!("{:^WIDE$} ", format::fraction(*mean)));
            lines.push(Line::raw(format!("  {}", values.collect::<String>())));
        }
        lines
    }

    fn events(&self, room: usize) -> Vec<Line<'static>> {
        let events = &self.snapshot.events;
        let mut lines = vec![Line::raw(" What has happened, and how long ago")];
        for event in &events[events.len().saturating_sub(room)..] {
            let color = match event.text.as_str() {
                text if text.contains("killed by") || text.contains("giving up") => Color::Red,
                text if text.contains("replaces") => Color::Green,
                _ => Color::Reset,
            };
            let ago = self.snapshot.taken.saturating_sub(event.time);
            lines.push(Line::raw(format!("{:>6} {}", format::span(ago), event.text)).fg(color));
        }
        lines
    }
}

fn color(worker: &Worker) -> Color {
    match worker.state {
        _ if worker.condition == ProcessState::Stopped => Color::Red,
        State::Down => Color::Red,
        State::Starting => Color::Cyan,
        State::Idle => Color::Reset,
        State::Reading | State::Serving => Color::Green,
        State::Writing => Color::Yellow,
        State::Draining => Color::Magenta,
    }
}

/// Cuts a line that is too long, and marks the cut: a number cut in half would mislead.
fn fit(line: Line<'static>, width: usize) -> Line<'static> {
    if line.width() <= width {
        return line;
    }
    let mut room = width.saturating_sub(1);
    let mut fitting = Line::default().style(line.style);
    for span in line.spans {
        let text: String = span.content.chars().take(room).collect();
        room -= text.chars().count();
        fitting.push_span(Span::styled(text, span.style));
    }
    fitting.push_span("…");
    fitting
}

#[cfg(test)]
mod tests;
