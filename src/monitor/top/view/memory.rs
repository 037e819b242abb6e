//! Page 2, memory: one variable, which each process has for itself at the same address, and
//! beside it the memory that all of them share.

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use super::{Room, TopView, draw, hidden, window, wrap};
use crate::config::Model;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::scoreboard::snapshot::{Snapshot, Worker};

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
    lines.push(table.line(tr("parent"), Some(*pid), Some(private_counter.parent), None).bold());
    let mut foot = vec![table.line(tr("all"), None, None, Some(totals.served.connections)).bold()];
    let height = room.height.unwrap_or(usize::MAX);
    foot.extend(lessons(view, room.width, height.saturating_sub(lines.len() + workers.len() + 1)));
    let left = height.saturating_sub(lines.len() + foot.len());
    let (shown, more) = window(view.selected, workers.len(), left);
    for index in shown {
        let worker = &workers[index];
        let shared = Some(worker.served.connections);
        let line = table.line(&name(worker), worker.pid, worker.private_counter, shared);
        lines.push(if index == view.selected && view.end.is_none() { selected(line) } else { line });
    }
    if more > 0 {
        lines.push(hidden(more));
    }
    lines.extend(foot);
    lines
}

fn name(worker: &Worker) -> String {
    fill(tr("worker {n}"), &[("n", &worker.slot)])
}

fn selected(mut line: Line<'static>) -> Line<'static> {
    let start: String = line.spans[0].content.chars().skip(1).collect();
    line.spans[0].content = format!("▸{start}").into();
    line.bold()
}

/// What to learn from it: as many sentences as have room.
fn lessons(view: &TopView, width: usize, room: usize) -> Vec<Line<'static>> {
    let replaced = match view.snapshot.totals.restarts {
        0 => None,
        1 => Some(tr("1 worker was replaced, and has begun at 0.").to_owned()),
        n => Some(fill(tr("{n} workers were replaced, and have begun at 0."), &[("n", &n)])),
    };
    let texts = [
        tr("PRIVATE is in each process's own memory. When the process dies, it is lost."),
        tr("SHARED is one memory for all: the scoreboard. It stays when a process dies."),
    ];
    let mut lines = vec![Line::default()];
    for text in texts.into_iter().map(str::to_owned).chain(replaced) {
        let sentence = wrap(&text, width);
        if lines.len() + sentence.len() > room {
            break;
        }
        lines.extend(sentence.into_iter().map(Line::raw));
    }
    lines.truncate(room);
    lines
}

/// The processes, one a line.
struct Table {
    /// Where the variable is in each process.
    address: String,
    /// The highest number of a process: the longest bar.
    most: u64,
    // Widths; no bar has the width 0.
    name: usize,
    pid: usize,
    number: usize,
    bar: usize,
}

impl Table {
    fn new(snapshot: &Snapshot, width: usize) -> Table {
        let workers = &snapshot.workers;
        let address = snapshot.private_counter.address.clone();
        let names = [tr("process"), tr("parent"), tr("all")].map(str::to_owned).into_iter();
        let names = names.chain(workers.iter().map(name));
        let name = names.map(|name| draw::width(&name)).max().unwrap_or(0);
        let pids = workers.iter().filter_map(|worker| worker.pid).chain([snapshot.pid]);
        let pid = pids.map(|pid| pid.to_string().len()).max().unwrap_or(0).max(5);
        let number = draw::width(tr("PRIVATE")).max(draw::width(tr("SHARED"))).max(6);
        let own = workers.iter().filter_map(|worker| worker.private_counter);
        let most = own.chain(workers.iter().map(|worker| worker.served.connections)).max().unwrap_or(0);
        let fixed = 2 + name + 1 + pid + 2 + address.len() + 2 * (2 + number + 1);
        let bar = (width.saturating_sub(fixed) / 2).min(24);
        Table { address, most, name, pid, number, bar: if bar < 4 { 0 } else { bar } }
    }

    fn headings(&self) -> Line<'static> {
        let (name, pid) = (draw::left(tr("process"), self.name), draw::right("pid", self.pid));
        let address = draw::left(tr("at address"), self.address.len());
        let heading = |text: &str| {
            let bar = if self.bar > 0 { " ".repeat(1 + self.bar) } else { String::new() };
            Span::raw(format!("  {}{bar}", draw::right(text, self.number)))
        };
        let [private, shared] = [heading(tr("PRIVATE")).yellow(), heading(tr("SHARED")).green()];
        Line::from(vec![Span::raw(format!("  {name} {pid}  {address}")), private, shared]).bold()
    }

    /// A process with its own number and that on the scoreboard; or all together.
    fn line(&self, name: &str, pid: Option<i32>, private: Option<u64>, shared: Option<u64>) -> Line<'static> {
        let number = |number: Option<u64>| {
            let text = number.map_or("-".into(), format::number);
            let value = number.filter(|number| *number <= self.most).unwrap_or(0) as f64;
            let bar = draw::left(&format::bar(value, self.most as f64, self.bar), self.bar);
            let bar = if self.bar > 0 { format!(" {bar}") } else { bar };
            Span::raw(format!("  {}{bar}", draw::right(&text, self.number)))
        };
        let address = if pid.is_some() { self.address.as_str() } else { "" };
        let pid = pid.map_or(String::new(), |pid| pid.to_string());
        let start = format!("  {} {}", draw::left(name, self.name), draw::right(&pid, self.pid));
        Line::from(vec![
            Span::raw(start),
            Span::raw(format!("  {}", draw::left(address, self.address.len()))),
            number(private).fg(Color::Yellow),
            number(shared).fg(Color::Green),
        ])
    }
}
