//! The pages that `top` shows: lines of text from a snapshot, and nothing else.
//!
//! One idea a page: `flow` is the way of a connection, `memory` what is each process's own
//! and what is shared, `rates` how the work is spread and how much it is. A page fits
//! whatever room there is, and cuts no number in half. Texts are in the user's language
//! ([`tr`]); all widths are columns of the terminal (`draw`).

mod draw;
mod flow;
mod help;
mod memory;
mod rates;

use std::ops::Range;
use std::time::Instant;

use ratatui::style::Stylize;
use ratatui::text::Line;

use super::history::History;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::scoreboard::Phase;
use crate::scoreboard::snapshot::Snapshot;

/// A page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Page {
    /// The way of a connection, and where each process is.
    Flow,
    /// One variable in each process, and what all of them share.
    Memory,
    /// How the work is spread over the workers, and how much it is.
    Rates,
}

impl Page {
    const ALL: [Page; 3] = [Page::Flow, Page::Memory, Page::Rates];

    /// The page that a key asks for.
    pub fn of_key(self, key: char) -> Option<Page> {
        match key {
            '1' => Some(Page::Flow),
            '2' => Some(Page::Memory),
            '3' => Some(Page::Rates),
            '\t' => Some(Page::ALL[(self as usize + 1) % Page::ALL.len()]),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Page::Flow => tr("flow"),
            Page::Memory => tr("memory"),
            Page::Rates => tr("rates"),
        }
    }
}

/// What is to be seen.
#[derive(Debug, Clone)]
pub struct TopView {
    /// What the server is doing.
    pub snapshot: Snapshot,
    /// What the snapshots before have shown.
    pub history: History,
    /// What it is looked at for.
    pub page: Page,
    /// The worker that the keys are for, an index into the snapshot's.
    pub selected: usize,
    /// Does the view stand still?
    pub paused: bool,
    /// Is the explanation shown instead?
    pub help: bool,
    /// Is it drawn with ASCII alone?
    pub ascii: bool,
    /// When a key has done something, and what.
    pub note: Option<(Instant, String)>,
    /// How the server has ended.
    pub end: Option<String>,
}

/// The room for a page: columns, and lines. No height: as many lines as it takes.
#[derive(Debug, Clone, Copy)]
struct Room {
    width: usize,
    height: Option<usize>,
}

impl TopView {
    /// The lines of the whole view, for a terminal of this size.
    pub fn lines(&self, width: usize, height: usize) -> Vec<Line<'static>> {
        let room = Room { width, height: Some(height.saturating_sub(2)) };
        let mut lines = vec![self.title(width)];
        lines.extend(if self.help { help::lines(room) } else { self.body(self.page, room) });
        lines.resize(height.saturating_sub(1), Line::default());
        lines.push(self.foot(width));
        lines.into_iter().map(|line| self.finish(line, width)).collect()
    }

    /// All pages, one after the other.
    pub fn text(&self, width: usize) -> Vec<Line<'static>> {
        let room = Room { width, height: None };
        let pages = Page::ALL.iter().map(|page| {
            let title = TopView { page: *page, ..self.clone() }.title(width);
            [vec![title], self.body(*page, room)].concat()
        });
        let pages: Vec<_> = pages.collect();
        pages.join(&Line::default()).into_iter().map(|line| self.finish(line, width)).collect()
    }

    fn finish(&self, line: Line<'static>, width: usize) -> Line<'static> {
        let line = draw::fit(line, width);
        if self.ascii { draw::ascii(line) } else { line }
    }

    fn body(&self, page: Page, room: Room) -> Vec<Line<'static>> {
        let lines = match page {
            Page::Flow => flow::lines(self, room),
            Page::Memory => memory::lines(self, room),
            Page::Rates => rates::lines(self, room),
        };
        match &self.end {
            None => lines,
            Some(_) => lines.into_iter().map(draw::grey).collect(),
        }
    }

    fn title(&self, width: usize) -> Line<'static> {
        let Snapshot { address, phase, uptime, .. } = &self.snapshot;
        let time = format::span(*uptime);
        let in_short = |short: &str| (short.to_owned(), short.to_owned());
        let (state, short) = match (&self.end, phase) {
            (Some(_), _) | (_, Phase::Ended(_)) => in_short(tr("ENDED")),
            _ if self.paused => in_short(tr("PAUSED")),
            (None, Phase::Draining) => in_short(tr("SHUTTING DOWN")),
            (None, Phase::Running) => (fill(tr("running for {time}"), &[("time", &time)]), time),
        };
        let tab = |(index, page): (usize, &Page)| {
            let name = format!("{} {}", index + 1, page.name());
            if *page == self.page { format!("[{name}]") } else { format!(" {name} ") }
        };
        let tabs: String = Page::ALL.iter().enumerate().map(tab).collect();
        let room = width.saturating_sub(draw::width(&tabs) + 1);
        let names = [
            format!(" prefork-echo  {address}  {state}"),
            format!(" {address}  {state}"),
            format!(" {address}  {short}"),
        ];
        let name = names.iter().find(|name| draw::width(name) < room).unwrap_or(&names[2]);
        let name = draw::left(name, room);
        Line::raw(draw::left(&format!("{name}{tabs}"), width)).reversed().bold()
    }

    fn foot(&self, width: usize) -> Line<'static> {
        match (&self.end, &self.note) {
            (Some(end), _) => {
                Line::raw(format!(" {}", fill(tr("{end}; press q"), &[("end", end)]))).red().bold()
            }
            (_, Some((_, note))) => Line::raw(format!(" {note}")).yellow(),
            _ if self.help => Line::raw(format!(" {}", tr("Any key leads back."))).bold(),
            _ => Line::raw(help::keys(width)).dim(),
        }
    }
}

/// Which of `all` lines are shown in `room`, so that the selected one is among them, and how
/// many are hidden. It scrolls by as little as it must.
fn window(selected: usize, all: usize, room: usize) -> (Range<usize>, usize) {
    // Where some are hidden, the last line says so.
    let has_mark = (2..all).contains(&room);
    let shown = all.min(if has_mark { room - 1 } else { room });
    let first = (selected + 1).saturating_sub(shown).min(all - shown);
    (first..first + shown, if has_mark { all - shown } else { 0 })
}

/// The line that says how many are hidden.
fn hidden(number: usize) -> Line<'static> {
    Line::raw(format!("  ⋮ {}", fill(tr("{n} more: the arrow keys scroll"), &[("n", &number)]))).dim()
}

/// The text in lines, broken at spaces.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![" ".to_owned()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("there is always one");
        if last.trim().is_empty() || draw::width(last) + draw::width(word) < width {
            let space = if last.trim().is_empty() { "" } else { " " };
            *last += &format!("{space}{word}");
        } else {
            lines.push(format!(" {word}"));
        }
    }
    lines
}

/// "1 client", "3 clients".
fn clients(number: u64) -> String {
    match number {
        1 => tr("1 client").into(),
        _ => fill(tr("{n} clients"), &[("n", &format::number(number))]),
    }
}

/// "1 connection", "3 connections".
fn connections(number: u64) -> String {
    match number {
        1 => tr("1 connection").into(),
        _ => fill(tr("{n} connections"), &[("n", &format::number(number))]),
    }
}

#[cfg(test)]
mod tests;
