//! Page 2, memory: one variable, which each process has for itself at the same address, and
//! beside it the memory that all of them share.

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use super::{Room, TopView, connections, draw, hidden, window, wrap};
use crate::config::Model;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::scoreboard::snapshot::{PrivateCounter, Snapshot, Worker};

/// The page.
pub(super) fn lines(view: &TopView, room: Room) -> Vec<Line<'static>> {
    let Snapshot { private_counter, totals, workers, pid, model, .. } = &view.snapshot;
    let table = Table::new(&view.snapshot, room.width);
    let text = match model {
        Model::Thread => tr("Each process counts its connections in one variable. Its threads share it."),
        _ => tr("Each process counts its connections in a variable, at the same address."),
    };
    let mut lines: Vec<_> = wrap(text, room.width).into_iter().map(|line| Line::raw(line).cyan()).collect();
    lines.push(Line::default());
    lines.push(table.headings());
    lines.push(table.line(tr("parent"), &pid.to_string(), &private_counter.parent.to_string(), "-").bold());
    let foot = foot(view, room.width, totals.served.connections, table.is_wide);
    let height = room.height.unwrap_or(usize::MAX);
    let left = height.saturating_sub(lines.len() + foot.len());
    let (shown, more) = window(view.selected, workers.len(), left);
    for index in shown {
        let line = table.worker(&workers[index]);
        lines.push(if index == view.selected && view.end.is_none() { selected(line) } else { line });
    }
    if more > 0 {
        lines.push(hidden(more));
    }
    lines.extend(foot);
    lines
}

fn selected(line: Line<'static>) -> Line<'static> {
    let text = line.to_string();
    let rest: String = text.chars().skip(1).collect();
    Line::raw(format!("▸{rest}")).style(line.style).reversed()
}

/// The sum, and what to learn from it.
fn foot(view: &TopView, width: usize, all: u64, is_wide: bool) -> Vec<Line<'static>> {
    let total =
        fill(tr("All together, in shared memory: {connections}."), &[("connections", &connections(all))]);
    let mut lines = vec![Line::default()];
    lines.extend(wrap(&total, width).into_iter().map(|line| Line::raw(line).green().bold()));
    let lesson = match is_wide {
        true => tr("OWN is in memory of its own: it ends with the process. SHARED stays."),
        false => tr("OWN ends with the process. SHARED stays."),
    };
    let restarts = view.snapshot.totals.restarts;
    let replaced = match restarts {
        0 => String::new(),
        1 => tr("1 worker was replaced, and has begun at 0.").into(),
        n => fill(tr("{n} workers were replaced, and have begun at 0."), &[("n", &n)]),
    };
    for text in [lesson, &replaced].into_iter().filter(|text| !text.is_empty()) {
        lines.extend(wrap(text, width).into_iter().map(Line::raw));
    }
    lines
}

/// The processes, one a line.
struct Table {
    address: String,
    name: usize,
    pid: usize,
    /// Is there room for bars?
    bar: usize,
    most: u64,
    is_wide: bool,
}

impl Table {
    fn new(snapshot: &Snapshot, width: usize) -> Table {
        let Snapshot { private_counter: PrivateCounter { address, .. }, workers, .. } = snapshot;
        let slots = workers.iter().map(|worker| draw::width(&name(worker)));
        let name = slots.max().unwrap_or(0).max(draw::width(tr("parent")));
        let pids = workers.iter().filter_map(|worker| worker.pid).map(|pid| pid.to_string().len());
        let pid = pids.max().unwrap_or(1).max(snapshot.pid.to_string().len()).max(5);
        let own = workers.iter().filter_map(|worker| worker.private_counter);
        let most = own.chain(workers.iter().map(|worker| worker.served.connections)).max().unwrap_or(0);
        let fixed = 2 + name + 1 + pid + 2 + address.len() + 2 + 2 * (NUMBER + 2);
        let bar = (width.saturating_sub(fixed + 4) / 2).min(24);
        let bar = if bar < 4 { 0 } else { bar };
        Table { address: address.clone(), name, pid, bar, most, is_wide: width >= 72 }
    }

    fn headings(&self) -> Line<'static> {
        let wide = NUMBER + if self.bar > 0 { 1 + self.bar } else { 0 };
        let heading = |text: &str| draw::left(&format!("{}{text}", " ".repeat(3)), wide + 2);
        let [own, shared] = [heading(tr("OWN")), heading(tr("SHARED"))];
        let start = format!("  {} {}  ", draw::left(tr("process"), self.name), draw::right("pid", self.pid));
        let address = draw::left(tr("at address"), self.address.len());
        Line::from(vec![
            Span::raw(format!("{start}{address}")),
            Span::raw(own).yellow(),
            Span::raw(shared).green(),
        ])
        .bold()
    }

    fn line(&self, name: &str, pid: &str, own: &str, shared: &str) -> Line<'static> {
        let bar = |value: &str| match (self.bar, value.parse::<u64>()) {
            (0, _) => String::new(),
            (width, Ok(value)) => {
                format!(" {}", draw::left(&format::bar(value as f64, self.most as f64, width), width))
            }
            (width, Err(_)) => " ".repeat(width + 1),
        };
        let number = |value: &str| match value.parse() {
            Ok(number) => draw::right(&format::number(number), NUMBER),
            Err(_) => draw::right(value, NUMBER),
        };
        let start = format!("  {} {}  ", draw::left(name, self.name), draw::right(pid, self.pid));
        Line::from(vec![
            Span::raw(start),
            Span::raw(format!("{}  ", self.address)).dim(),
            Span::raw(format!("{}{}  ", number(own), bar(own))).fg(Color::Yellow),
            Span::raw(format!("{}{}", number(shared), bar(shared))).fg(Color::Green),
        ])
    }

    fn worker(&self, worker: &Worker) -> Line<'static> {
        let text = |number: Option<u64>| number.map_or("-".into(), |number| number.to_string());
        let pid = worker.pid.map_or("-".into(), |pid| pid.to_string());
        let shared = worker.served.connections.to_string();
        self.line(&name(worker), &pid, &text(worker.private_counter), &shared)
    }
}

/// The widest number.
const NUMBER: usize = 6;

fn name(worker: &Worker) -> String {
    fill(tr("worker {n}"), &[("n", &worker.slot)])
}
