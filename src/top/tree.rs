//! The workers in `top`'s picture: a twig of the process tree each.

use ratatui::style::{Color, Style, Stylize};
use ratatui::text::Line;

use super::picture::Picture;
use crate::scoreboard::State;
use crate::short;
use crate::snapshot::Worker;

/// What a column is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Slot,
    Pid,
    State,
    Since,
    Client,
    Served,
    Bytes,
    Private,
    Restarts,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    of: Of,
    heading: &'static str,
    width: usize,
    left: bool,
}

/// In the order of their places.
const COLUMNS: [Column; 9] = [
    Column { of: Of::Slot, heading: "SLOT", width: 4, left: false },
    Column { of: Of::Pid, heading: "PID", width: 7, left: false },
    Column { of: Of::State, heading: "STATE", width: 8, left: true },
    Column { of: Of::Since, heading: "FOR", width: 5, left: false },
    Column { of: Of::Client, heading: "CLIENT", width: 21, left: true },
    Column { of: Of::Served, heading: "SERVED", width: 6, left: false },
    Column { of: Of::Bytes, heading: "BYTES", width: 6, left: false },
    Column { of: Of::Private, heading: "PRIVATE", width: 7, left: false },
    Column { of: Of::Restarts, heading: "RE", width: 3, left: false },
];

/// In the order in which they are given up.
const DISPENSABLE: [Of; 6] = [Of::Restarts, Of::Bytes, Of::Since, Of::Client, Of::Private, Of::Served];

fn columns_within(width: usize) -> Vec<Column> {
    let mut columns = COLUMNS.to_vec();
    for of in DISPENSABLE {
        let needed: usize = 4 + columns.iter().map(|column| column.width + 1).sum::<usize>();
        if needed <= width + 1 {
            break;
        }
        columns.retain(|column| column.of != of);
    }
    columns
}

impl Column {
    fn pad(&self, text: &str) -> String {
        let width = self.width;
        if self.left { format!("{text:<width$} ") } else { format!("{text:>width$} ") }
    }
}

impl Picture {
    /// The tree: so many workers, the selected one among them.
    pub(super) fn tree(&self, width: usize, room: usize) -> Vec<Line<'static>> {
        let workers = &self.snapshot.workers;
        let columns = columns_within(width);
        let headings = columns.iter().map(|column| column.pad(column.heading)).collect::<String>();
        let mut lines = vec![Line::raw(format!("  │ {headings}")).dim()];
        // It scrolls by as little as it must.
        let selected = self.selected.min(workers.len().saturating_sub(1));
        let first = (selected + 1).saturating_sub(room);
        for (index, worker) in workers.iter().enumerate().skip(first).take(room) {
            let twig = if index + 1 == workers.len() { "└─" } else { "├─" };
            let mark = if index == selected { "▸" } else { " " };
            let cells = columns.iter().map(|column| column.pad(&self.cell(worker, column.of)));
            let line = format!("{mark} {twig}{}", cells.collect::<String>());
            let line = Line::raw(line).style(self.ink(worker));
            lines.push(if index == selected { line.bold() } else { line });
        }
        lines
    }

    fn cell(&self, worker: &Worker, of: Of) -> String {
        let process = worker.process.as_ref();
        let text = match of {
            Of::Slot => Some(worker.slot.to_string()),
            Of::Pid => process.and_then(|process| process.pid).map(|pid| pid.to_string()),
            Of::State if self.is_stopped(worker) => Some("stopped".into()),
            Of::State => Some(worker.state().name().into()),
            Of::Since => process.map(|process| short::span(process.since)),
            Of::Client => process.and_then(|process| process.peer).map(|peer| short::address(peer, 21)),
            Of::Served => Some(short::number(worker.served.connections)),
            Of::Bytes => Some(short::number(worker.served.bytes)),
            Of::Private => process.map(|process| short::number(process.private_counter)),
            Of::Restarts => Some(short::number(worker.restarts)),
        };
        text.unwrap_or_else(|| "-".into())
    }

    fn is_stopped(&self, worker: &Worker) -> bool {
        let pid = worker.process.as_ref().and_then(|process| process.pid);
        pid.is_some_and(|pid| self.stopped.contains(&pid))
    }

    fn ink(&self, worker: &Worker) -> Style {
        let ink = match worker.state() {
            _ if self.is_stopped(worker) => Color::Red,
            State::Down => Color::Red,
            State::Starting => Color::Cyan,
            State::Idle => Color::Reset,
            State::Reading => Color::Green,
            State::Writing => Color::Yellow,
            State::Draining => Color::Magenta,
        };
        Style::new().fg(ink)
    }
}
