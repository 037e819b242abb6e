//! Page 1, the flow: clients on the left, the accept queue of the one listening socket, and
//! the workers on the right, each with the call that it is in.

mod columns;
mod workers;

use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};

use self::columns::Columns;
use self::workers::{Row, accepts};
use super::{Room, TopView, draw, hidden, window, wrap};
use crate::config::Model;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::monitor::top::death::Death;
use crate::scoreboard::snapshot::{AcceptQueue, Snapshot};
use crate::sys::poller::WAIT_CALL;
use crate::sys::process::ProcessState;

/// The lines of a page without a limit: so many events, and so many lines a worker.
const FEW: usize = 4;

/// The page. The box and the workers first; what is left goes to deaths, to the sentence
/// above, to the single clients of workers with several, and to the events.
pub(super) fn lines(view: &TopView, room: Room) -> Vec<Line<'static>> {
    let snapshot = &view.snapshot;
    let columns = Columns::new(snapshot, room.width);
    let deaths = if view.end.is_none() { Death::recent(snapshot) } else { Vec::new() };
    let head = head(view, &columns, room.width);
    let all = snapshot.workers.len();

    let height = room.height.unwrap_or(usize::MAX);
    let mut left = height.saturating_sub(head.len());
    let mut take = |wanted: usize| {
        let taken = wanted.min(left);
        left -= taken;
        taken
    };
    let (shown, more) = window(view.selected, all, take(all));
    let mut deaths_shown = take(deaths.len());
    let mut caption: Vec<_> = caption(view, room.width);
    if take(caption.len() + 1) < caption.len() + 1 {
        caption.clear();
    }
    let extra = if room.height.is_none() { all * FEW } else { take(left_for_clients(snapshot, left)) };
    let events = if room.height.is_none() { FEW } else { left.saturating_sub(2) };

    let mut lines = caption;
    if !lines.is_empty() {
        lines.push(Line::default());
    }
    lines.extend(head);
    let extra_each = spread(snapshot, shown.clone(), extra);
    let last_accepting = shown.clone().rev().find(|index| view.end.is_none() && accepts(snapshot, *index));
    for (index, extra) in shown.zip(extra_each) {
        let is_last = last_accepting.is_none_or(|last| index >= last);
        let row = Row { view, columns: &columns, index, is_last, lines: 1 + extra };
        lines.extend(row.lines());
        let slot = snapshot.workers[index].slot;
        let of_slot = deaths.iter().filter(|death| death.slot == slot && !snapshot.workers[index].leaving);
        for death in of_slot.take(deaths_shown) {
            deaths_shown -= 1;
            lines.push(death_line(death, &columns));
        }
    }
    if more > 0 {
        lines.push(hidden(more));
    }
    lines.extend(events_lines(snapshot, events));
    lines
}

/// What remains for the single clients, when some events have been left room.
fn left_for_clients(snapshot: &Snapshot, left: usize) -> usize {
    if snapshot.model == Model::Process { 0 } else { left.saturating_sub(FEW) }
}

/// How many of `extra` lines each of the shown workers gets for its clients: as many as it
/// needs, one after the other in turn.
fn spread(snapshot: &Snapshot, shown: std::ops::Range<usize>, mut extra: usize) -> Vec<usize> {
    let needs: Vec<usize> = snapshot.workers[shown]
        .iter()
        .map(|worker| worker.clients.unwrap_or(0).saturating_sub(1).min(1 << 10) as usize)
        .collect();
    let mut each = vec![0; needs.len()];
    while extra > 0 && each.iter().zip(&needs).any(|(has, needs)| has < needs) {
        for (has, needs) in each.iter_mut().zip(&needs).filter(|(has, needs)| has < needs) {
            if extra > 0 && *has < *needs {
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
    let Snapshot { address, accept_queue, pid, parent, workers, .. } = &view.snapshot;
    let has_ended = view.end.is_some();
    let accepts = !has_ended && (0..workers.len()).any(|index| accepts(&view.snapshot, index));
    let before = columns.before_box();
    let inner = width.saturating_sub(before + 3);
    let names = [
        fill(tr("in the kernel: one listening socket, {address}"), &[("address", address)]),
        fill(tr("one listening socket, {address}"), &[("address", address)]),
    ];
    let name = names.iter().find(|name| draw::width(name) + 3 <= inner).unwrap_or(&names[1]);
    let name = draw::cut(name, inner.saturating_sub(3));
    let line = "─".repeat(inner.saturating_sub(draw::width(&name) + 3));
    let bus = columns.bus_place();
    let bottom: String = (before + 1..before + 1 + inner)
        .map(|place| if place == bus && accepts { '┬' } else { '─' })
        .collect();
    let trunk = draw::right(if accepts { "│" } else { "" }, bus + 1);
    let parents = match parent {
        _ if has_ended => [fill(tr("parent {pid}: gone"), &[("pid", pid)]), String::new()],
        ProcessState::Stopped => {
            [fill(tr("parent {pid} is stopped: it replaces no worker"), &[("pid", pid)]), String::new()]
        }
        _ => [
            fill(tr("parent {pid} forked the workers; it serves no client"), &[("pid", pid)]),
            fill(tr("parent {pid} forked the workers"), &[("pid", pid)]),
        ],
    };
    let room = width.saturating_sub(bus + 3);
    let parent_text = parents.iter().find(|text| draw::width(text) <= room).unwrap_or(&parents[1]);
    let parent_text = if parent_text.is_empty() { &parents[0] } else { parent_text };
    let parent_span = Span::raw(parent_text.clone()).bold();
    let parent_span = if *parent == ProcessState::Stopped { parent_span.red() } else { parent_span };
    let clients = draw::left(&format!(" {}", tr("CLIENTS")), before);
    vec![
        Line::from(vec![Span::raw(clients).bold(), Span::raw(format!("┌─ {name} {line}┐"))]),
        queue(accept_queue, before, inner, has_ended),
        Line::raw(format!("{}└{bottom}┘", " ".repeat(before))),
        Line::from(vec![Span::raw(format!("{trunk}  ")), parent_span]),
        Line::from(vec![Span::raw(trunk), columns.headings(bus + 1).dim()]),
    ]
}

/// Those that wait: a dot for each, and how many can.
fn queue(queue: &AcceptQueue, before: usize, inner: usize, has_ended: bool) -> Line<'static> {
    let limit = queue.limit;
    let (waiting, text) = match queue.length {
        _ if has_ended => (0, tr("accept queue: gone").to_owned()),
        None => (0, tr("accept queue: this system does not tell how many wait").into()),
        Some(0) => (0, fill(tr("accept queue: empty (room for {limit})"), &[("limit", &limit)])),
        Some(n) => {
            let n = n as usize;
            (n, fill(tr("accept queue: {n} of {limit}"), &[("n", &n), ("limit", &limit)]))
        }
    };
    let room = inner.saturating_sub(draw::width(&text) + 3);
    let dots =
        if waiting <= room { "●".repeat(waiting) } else { "●".repeat(room.saturating_sub(1)) + "…" };
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
fn death_line(death: &Death, columns: &Columns) -> Line<'static> {
    let cut = match death.cut {
        0 => tr("✗ no client cut").to_owned(),
        1 => tr("✗ 1 client cut").into(),
        n => fill(tr("✗ {n} clients cut"), &[("n", &n)]),
    };
    let text = format!("pid {} {}, {}", death.pid, death.how(), death.replacement());
    let room = columns.before_box().max(draw::width(&cut) + 2);
    Line::raw(format!("{}{text}", draw::left(&format!(" {cut}"), room))).red().bold()
}

fn events_lines(snapshot: &Snapshot, room: usize) -> Vec<Line<'static>> {
    let events = &snapshot.events;
    let events = &events[events.len().saturating_sub(room)..];
    if events.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![Line::default(), Line::raw(tr(" What has happened, and how long ago")).dim()];
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
