//! Page 1, the flow: clients on the left, the accept queue of the one listening socket, and
//! the workers on the right, each with the call that it is in.

mod columns;
mod workers;

use std::fmt::Display;

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use self::columns::Columns;
use self::workers::{Row, accepts};
use super::{Room, TopView, draw, hidden, window, wrap};
use crate::config::Model;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::monitor::top::death::Death;
use crate::scoreboard::snapshot::{AcceptQueue, Pool, Snapshot};
use crate::sys::poller::WAIT_CALL;
use crate::sys::process::ProcessState;

/// So many events there are before single clients are shown: a death and its replacement.
const EVENTS: usize = 2;

/// So many single clients of a worker, and events, are on a page without a limit.
const FEW: usize = 4;

/// The page.
pub(super) fn lines(view: &TopView, room: Room) -> Vec<Line<'static>> {
    let snapshot = &view.snapshot;
    let columns = Columns::new(snapshot, room.width);
    let deaths = if view.end.is_none() { Death::recent(snapshot) } else { Vec::new() };
    let deaths: Vec<_> =
        deaths.iter().map(|death| (death.slot, death_lines(death, &columns, room.width))).collect();
    let (caption, head) = (caption(view, room.width), head(view, &columns, room.width));
    let death_lines = deaths.iter().map(|(_, lines)| lines.len()).sum();
    let shares = Shares::new(snapshot, room.height, caption.len() + 1, head.len(), death_lines);
    let (shown, more) = window(view.selected, snapshot.workers.len(), shares.workers);

    let mut lines = Vec::new();
    if shares.has_caption {
        lines.extend(caption);
        lines.push(Line::default());
    }
    lines.extend(head);
    let clients_each = spread(snapshot, shown.clone(), shares.clients);
    let last_accepting = shown.clone().rev().find(|index| accepts(snapshot, *index));
    let mut deaths_left = shares.deaths;
    for (index, clients) in shown.zip(clients_each) {
        let is_last = last_accepting.is_none_or(|last| index >= last);
        let row = Row { view, columns: &columns, index, is_last, lines: 1 + clients };
        lines.extend(row.lines());
        let worker = &snapshot.workers[index];
        let of_slot = deaths.iter().filter(|(slot, _)| *slot == worker.slot && !worker.leaving);
        for line in of_slot.flat_map(|(_, lines)| lines).take(deaths_left) {
            deaths_left -= 1;
            lines.push(line.clone());
        }
        if shares.has_gaps {
            lines.push(row.gap());
        }
    }
    if more > 0 {
        lines.push(hidden(more));
    }
    lines.extend(events_lines(snapshot, shares.events));
    lines
}

/// How many lines each part of the page gets.
struct Shares {
    workers: usize,
    deaths: usize,
    has_caption: bool,
    /// For the single clients of workers with several.
    clients: usize,
    /// Is there a line between one worker and the next?
    has_gaps: bool,
    events: usize,
}

impl Shares {
    /// The box and the workers first, then deaths, the sentence above, some events, the single
    /// clients, lines between the workers, and more events.
    fn new(snapshot: &Snapshot, height: Option<usize>, caption: usize, head: usize, deaths: usize) -> Shares {
        let all = snapshot.workers.len();
        let Some(height) = height else {
            let clients = all * FEW;
            return Shares { workers: all, deaths, has_caption: true, clients, has_gaps: false, events: FEW };
        };
        let mut left = height.saturating_sub(head);
        let mut take = |wanted: usize| {
            let taken = wanted.min(left);
            left -= taken;
            taken
        };
        let (workers, deaths, taken) = (take(all), take(deaths), take(caption));
        let events = take(EVENTS + 2);
        let several = snapshot.workers.iter().map(|worker| worker.clients.unwrap_or(0).saturating_sub(1));
        let several = several.fold(0, u64::saturating_add).min(height as u64) as usize;
        let clients = take(several);
        let has_gaps = left >= all;
        let events = (events + left - if has_gaps { all } else { 0 }).saturating_sub(2);
        Shares { workers, deaths, has_caption: taken == caption, clients, has_gaps, events }
    }
}

/// How many of `extra` lines each of the shown workers gets for its clients: as many as it
/// needs, one after the other in turn.
fn spread(snapshot: &Snapshot, shown: std::ops::Range<usize>, mut extra: usize) -> Vec<usize> {
    let needs: Vec<usize> = snapshot.workers[shown]
        .iter()
        .map(|worker| worker.clients.unwrap_or(0).saturating_sub(1).min(1 << 10) as usize)
        .collect();
    let mut each = vec![0; needs.len()];
    while extra > 0 && each != needs {
        for (has, needs) in each.iter_mut().zip(&needs) {
            if *has < *needs && extra > 0 {
                *has += 1;
                extra -= 1;
            }
        }
    }
    each
}

/// What the page shows, in a sentence.
fn caption(view: &TopView, width: usize) -> Vec<Line<'static>> {
    let Snapshot { accept_queue, model, workers, .. } = &view.snapshot;
    let all_busy = !workers.is_empty() && !(0..workers.len()).any(|index| accepts(&view.snapshot, index));
    let (text, color) = match model {
        _ if view.end.is_some() => {
            (tr("The server has ended. This was its last moment.").to_owned(), Color::Red)
        }
        _ if all_busy && accept_queue.length.is_some_and(|length| length > 0) => (
            tr("No worker is in accept(). The next clients are connected, and wait.").to_owned(),
            Color::Yellow,
        ),
        Model::Process => (
            tr("accept() takes a connection from the queue. The worker serves it to its end.").into(),
            Color::Cyan,
        ),
        Model::Thread => (
            tr("accept() takes a connection from the queue. A thread serves it to its end.").into(),
            Color::Cyan,
        ),
        Model::Multiplex => {
            let text = tr("A worker waits for all its clients at once, in one call of {call}.");
            (fill(text, &[("call", &WAIT_CALL)]), Color::Cyan)
        }
    };
    wrap(&text, width).into_iter().map(|line| Line::raw(line).fg(color)).collect()
}

/// The listening socket with its queue, the parent, and the headings of the workers.
fn head(view: &TopView, columns: &Columns, width: usize) -> Vec<Line<'static>> {
    let Snapshot { address, accept_queue, workers, .. } = &view.snapshot;
    let has_ended = view.end.is_some();
    let accepts = !has_ended && (0..workers.len()).any(|index| accepts(&view.snapshot, index));
    let (before, bus) = (columns.before_box(), columns.bus_place());
    let inner = width.saturating_sub(before + 3);
    let names = [
        fill(tr("in the kernel: one listening socket, {address}"), &[("address", address)]),
        fill(tr("one listening socket, {address}"), &[("address", address)]),
        tr("one listening socket").to_owned(),
    ];
    let name = draw::cut(first_that_fits(&names, inner.saturating_sub(3)), inner.saturating_sub(3));
    let line = "─".repeat(inner.saturating_sub(draw::width(&name) + 3));
    let letter = |place: usize| if place == bus && accepts { '┬' } else { '─' };
    let bottom: String = (before + 1..before + 1 + inner).map(letter).collect();
    let trunk = draw::right(if accepts { "│" } else { "" }, bus + 1);
    let clients = draw::left(&format!(" {}", tr("CLIENTS")), before);
    vec![
        Line::from(vec![Span::raw(clients).bold(), Span::raw(format!("┌─ {name} {line}┐"))]),
        queue(accept_queue, before, inner, has_ended),
        Line::raw(format!("{}└{bottom}┘", " ".repeat(before))),
        Line::from(vec![Span::raw(format!("{trunk}  ")), parent(view, width.saturating_sub(bus + 3))]),
        Line::from(vec![Span::raw(trunk), columns.headings(bus + 1).dim()]),
    ]
}

/// What the parent is for.
fn parent(view: &TopView, room: usize) -> Span<'static> {
    let pid = view.snapshot.pid;
    let Pool { min, max, now } = view.snapshot.pool;
    let pool: [(&str, &dyn Display); 4] = [("pid", &pid), ("now", &now), ("least", &min), ("most", &max)];
    let texts = match view.snapshot.parent {
        _ if view.end.is_some() => vec![fill(tr("parent {pid}: gone"), &[("pid", &pid)])],
        ProcessState::Stopped => vec![
            fill(tr("parent {pid} is stopped: it replaces no worker"), &[("pid", &pid)]),
            fill(tr("parent {pid} is stopped"), &[("pid", &pid)]),
        ],
        _ if min != max => vec![
            fill(tr("parent {pid} forked these {now}; as needed {least} to {most}"), &pool),
            fill(tr("parent {pid}: {now} of {least} to {most} workers"), &pool),
        ],
        _ => vec![
            fill(tr("parent {pid} forked these; it serves no client"), &[("pid", &pid)]),
            fill(tr("parent {pid} forked the workers"), &[("pid", &pid)]),
        ],
    };
    let span = Span::raw(first_that_fits(&texts, room).to_owned()).bold();
    if view.snapshot.parent == ProcessState::Stopped { span.red() } else { span }
}

/// The texts say the same, in ever fewer columns.
fn first_that_fits(texts: &[String], room: usize) -> &str {
    texts.iter().find(|text| draw::width(text) <= room).unwrap_or(&texts[texts.len() - 1])
}

/// Those that wait: a dot for each, and how many can.
fn queue(queue: &AcceptQueue, before: usize, inner: usize, has_ended: bool) -> Line<'static> {
    let limit = queue.limit;
    let (waiting, text) = match queue.length {
        _ if has_ended => (0, tr("accept queue: gone").to_owned()),
        None => (0, tr("accept queue (length not known here)").into()),
        Some(0) => (0, fill(tr("accept queue: empty (room for {limit})"), &[("limit", &limit)])),
        Some(n) => {
            let n = n as usize;
            (n, fill(tr("accept queue: {n} of {limit}"), &[("n", &n), ("limit", &limit)]))
        }
    };
    let room = inner.saturating_sub(draw::width(&text) + 3);
    let dots = match waiting {
        few if few <= room => "●".repeat(few),
        _ if room < 3 => String::new(),
        _ => "●".repeat(room - 1) + "…",
    };
    let inside = draw::left(&format!(" {text} {dots}"), inner);
    let label = match waiting {
        0 => String::new(),
        1 => tr("1 waits").into(),
        n => fill(tr("{n} wait"), &[("n", &n)]),
    };
    let line = before.saturating_sub(draw::width(&label) + 3);
    let arrow = if has_ended { " ".repeat(line + 1) } else { "─".repeat(line) + "▶" };
    let color = if waiting > 0 { Color::Yellow } else { Color::Reset };
    let sides = [Span::raw("│"), Span::raw("│")];
    let [one, other] = sides;
    let left = Span::raw(draw::left(&format!(" {label} {arrow}"), before)).fg(color);
    Line::from(vec![left, one, Span::raw(inside).fg(color).bold(), other])
}

/// A death: what it has cut, in the place of the clients, and how the slot was filled again.
fn death_lines(death: &Death, columns: &Columns, width: usize) -> Vec<Line<'static>> {
    let cut = match death.cut {
        0 => tr("no client cut").to_owned(),
        1 => tr("1 client cut").into(),
        n => fill(tr("{n} clients cut"), &[("n", &n)]),
    };
    let text = format!("pid {} {}, {}", death.pid, death.how(), death.replacement());
    let line = format!("{} {text}", draw::left(&format!(" ✗ {cut}"), columns.before_box() - 1));
    let is_whole = draw::width(&cut) + 4 <= columns.before_box() && draw::width(&line) <= width;
    let lines = if is_whole { vec![line] } else { wrap(&format!("✗ {cut}: {text}"), width) };
    lines.into_iter().map(|line| Line::raw(line).red().bold()).collect()
}

fn events_lines(snapshot: &Snapshot, room: usize) -> Vec<Line<'static>> {
    let events = &snapshot.events;
    let events = &events[events.len().saturating_sub(room)..];
    if events.is_empty() {
        return Vec::new();
    }
    let mut lines =
        vec![Line::default(), Line::raw(format!(" {}", tr("What has happened, and how long ago"))).dim()];
    for event in events {
        let color = match event.text.as_str() {
            text if text.contains("killed by") || text.contains("giving up") => Color::Red,
            text if text.contains("replaces") => Color::Green,
            _ => Color::Reset,
        };
        let ago = snapshot.taken.saturating_sub(event.time);
        lines.push(Line::raw(format!("{:>6} {}", format::span(ago), event.text)).fg(color));
    }
    lines
}
