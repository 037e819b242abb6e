//! The fixed texts of `top`: the line of keys, and the explanation that `?` shows. It fits
//! into 60 columns and 20 lines.

use ratatui::style::Stylize;
use ratatui::text::Line;

use super::{Page, Room, draw};
use crate::language::tr;
use crate::sys::poller::WAIT_CALL;

/// The last line of the view: as many keys as there is room for.
pub(super) fn keys(width: usize) -> String {
    let keys = [
        tr("q quit"),
        tr("? help"),
        tr("Tab page"),
        tr("↑↓ select"),
        "k KILL",
        "t TERM",
        "s STOP",
        "c CONT",
        tr("+- workers"),
        tr("p pause"),
    ];
    let mut line = String::new();
    for key in keys {
        let longer = format!("{line}{}{key}", if line.is_empty() { " " } else { "  " });
        if draw::width(&longer) > width && !line.is_empty() {
            break;
        }
        line = longer;
    }
    line
}

/// What is shown instead of the page.
pub(super) fn lines(room: Room) -> Vec<Line<'static>> {
    let page = |index: usize| format!("{} {}", index + 1, Page::ALL[index].name());
    let pages = [
        (page(0), tr("the way of a connection to its worker")),
        (page(1), tr("own memory of each process, and shared memory")),
        (page(2), tr("how connections are spread, and how many come")),
    ];
    let calls = [
        ("accept()", tr("it sleeps until a client connects")),
        ("recv()", tr("it sleeps until its client sends or closes")),
        ("send()", tr("it sleeps while its client does not read")),
        (WAIT_CALL, tr("it sleeps until any of its clients sends")),
        ("≥3.0s", tr("for longer: it was so when top was started")),
    ];
    let keys = [
        ("1 2 3 Tab", tr("a page, the next page")),
        ("↑ ↓", tr("select a worker (PgUp, PgDn, Home, End)")),
        ("k t s c", tr("send it SIGKILL, SIGTERM, SIGSTOP, SIGCONT")),
        ("+ -", tr("one worker more, one fewer")),
        ("p", tr("hold the picture, and let it go on")),
        ("q Esc", tr("leave; the server goes on")),
    ];
    let own = |(term, text): (&str, &'static str)| (term.to_owned(), text);
    let sections = [
        (tr("The pages"), pages.to_vec()),
        (tr("Where a worker is"), calls.map(own).to_vec()),
        (tr("Keys"), keys.map(own).to_vec()),
    ];
    let term_width =
        sections.iter().flat_map(|(_, entries)| entries).map(|(term, _)| draw::width(term)).max();
    let has_gaps = room.height.is_none_or(|height| height >= 20);
    let mut lines = Vec::new();
    for (heading, entries) in sections {
        if has_gaps {
            lines.push(Line::default());
        }
        lines.push(Line::raw(format!(" {heading}")).bold());
        let entry = |(term, text): &(String, &str)| {
            Line::raw(format!("  {} {text}", draw::left(term, term_width.unwrap_or(0))))
        };
        lines.extend(entries.iter().map(entry));
    }
    lines
}
