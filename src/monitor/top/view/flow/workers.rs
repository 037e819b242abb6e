//! The lines of one worker on page 1: its clients, each with a line that leads to it, and the
//! line from the listening socket, if it waits there.

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use super::super::clients as number_of_clients;
use super::columns::Columns;
use super::{TopView, draw, first_that_fits};
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::scoreboard::State;
use crate::scoreboard::snapshot::{Snapshot, Worker};
use crate::sys::process::ProcessState;

/// Does this worker wait for a connection? With several clients it does so beside them.
pub(super) fn accepts(snapshot: &Snapshot, index: usize) -> bool {
    let worker = &snapshot.workers[index];
    match worker.state {
        _ if worker.condition == ProcessState::Dead => false,
        State::Idle => true,
        State::Serving => worker.clients.unwrap_or(0) < snapshot.clients_per_worker as u64,
        _ => false,
    }
}

/// A worker and the room for it.
pub(super) struct Row<'a> {
    pub view: &'a TopView,
    pub columns: &'a Columns,
    /// The worker.
    pub index: usize,
    /// Does no later worker wait for a connection?
    pub is_last: bool,
    /// How many lines there are for it.
    pub lines: usize,
}

impl Row<'_> {
    pub fn lines(&self) -> Vec<Line<'static>> {
        if self.view.end.is_some() {
            return vec![self.gone()];
        }
        let clients = self.worker().clients.unwrap_or(0);
        let color = color(self.worker());
        let lines = (self.lines as u64).min(clients.max(1)) as usize;
        let line = |number| {
            let (client, way) = (self.client(number, lines, clients), self.way(number, lines, clients));
            let worker = match number {
                0 => self.worker_part(),
                1 => self.threads(),
                _ => Span::raw(""),
            };
            let is_selected = number == 0 && self.view.selected == self.index;
            let mark = if is_selected { " ▸ " } else { "   " };
            let worker = Span::raw(mark.to_owned() + &worker.content).fg(color);
            let worker = if is_selected { worker.reversed() } else { worker };
            Line::from(vec![Span::raw(format!(" {client}")).fg(color), Span::raw(way).fg(color), worker])
        };
        (0..lines).map(line).collect()
    }

    fn worker(&self) -> &Worker {
        &self.view.snapshot.workers[self.index]
    }

    fn worker_part(&self) -> Span<'static> {
        let Snapshot { model, clients_per_worker, .. } = self.view.snapshot;
        let since = self.view.history.since(self.worker());
        Span::raw(self.columns.worker(self.worker(), since, model, clients_per_worker))
    }

    /// That all these clients have one process.
    fn threads(&self) -> Span<'static> {
        let indent = " ".repeat(self.columns.slot + 1);
        let (clients, threads) = (self.worker().clients.unwrap_or(0), self.worker().threads.unwrap_or(1));
        let text = match threads {
            1 => fill(tr("{n} clients, one thread"), &[("n", &clients)]),
            _ => fill(tr("{n} clients, {threads} threads"), &[("n", &clients), ("threads", &threads)]),
        };
        let texts = [text, number_of_clients(clients)];
        let text = first_that_fits(&texts, self.columns.after_slot());
        Span::raw(indent + text)
    }

    /// The client of line `number` of `lines`, with the beginning of its line; the last one
    /// stands for all that have none.
    fn client(&self, number: usize, lines: usize, clients: u64) -> String {
        let width = self.columns.client;
        let text = match clients {
            0 => String::new(),
            1 => match self.worker().peer {
                Some(peer) => format::client(peer, self.worker().via, width),
                None => tr("1 client").into(),
            },
            _ if lines == 1 => {
                let text = number_of_clients(clients);
                let room = width.saturating_sub(draw::width(&text) + 1);
                format!("{text} {}", "●".repeat(room.min(clients as usize)))
            }
            _ if number + 1 == lines && clients > lines as u64 => {
                let rest = clients - lines as u64 + 1;
                fill(tr("{n} more"), &[("n", &format::number(rest))])
            }
            _ => format!("● {}", tr("client")),
        };
        let text = draw::left(&text, width).trim_end().to_owned() + " ";
        let line = if clients > 0 { "═" } else { " " };
        let rest = (width + 1).saturating_sub(draw::width(&text));
        text + &line.repeat(rest)
    }

    /// The way from the client, and from the listening socket, to the worker: what comes from
    /// the left, the crossing, and the arrow. The lines of several clients meet half way.
    fn way(&self, number: usize, lines: usize, clients: u64) -> String {
        let (width, crossing) = (self.columns.way, self.columns.crossing());
        let meeting = crossing / 2;
        let meet =
            |letter: &str, then: &str| "═".repeat(meeting) + letter + &then.repeat(crossing - meeting - 1);
        let left = match number {
            0 if clients == 0 => " ".repeat(crossing),
            0 if lines > 1 => meet("╦", "═"),
            0 => "═".repeat(crossing),
            _ if number + 1 == lines => meet("╝", " "),
            _ => meet("╣", " "),
        };
        // Does the line from the socket lead on to later workers?
        let or = |on: &'static str, end: &'static str| if self.is_last { end } else { on };
        let accepts = accepts(&self.view.snapshot, self.index);
        let (cross, line, arrow) = match (number, accepts, clients > 0) {
            (0, true, true) => ("╪", "═", "▶"),
            (0, true, false) => (or("├", "└"), "─", "▶"),
            (0, false, true) => (or("│", "═"), "═", "▶"),
            _ => (or("│", " "), " ", " "),
        };
        left + cross + &line.repeat(width.saturating_sub(crossing + 2)) + arrow
    }

    /// The line between this worker and the next.
    pub fn gap(&self) -> Line<'static> {
        let has_ended = self.view.end.is_some();
        let bus = if self.is_last || has_ended { "" } else { "│" };
        Line::raw(draw::right(bus, self.columns.bus_place() + 1))
    }

    /// A worker of a server that has ended.
    fn gone(&self) -> Line<'static> {
        let Columns { client, way, slot, pid, .. } = *self.columns;
        let number = self.worker().pid.map_or("-".into(), |pid| pid.to_string());
        let [slot, pid] = [draw::right(&self.worker().slot.to_string(), slot), draw::right(&number, pid)];
        Line::raw(format!("{}   {slot} {pid}  {}", " ".repeat(1 + client + 1 + way), tr("gone")))
    }
}

fn color(worker: &Worker) -> Color {
    match worker.state {
        _ if worker.condition != ProcessState::Alive => Color::Red,
        State::Down => Color::Red,
        State::Starting => Color::Cyan,
        State::Idle => Color::Reset,
        State::Reading | State::Serving => Color::Green,
        State::Writing => Color::Yellow,
        State::Draining => Color::Magenta,
    }
}
