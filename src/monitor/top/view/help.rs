//! The fixed texts of `top`: the line of keys, and the explanation that `?` shows. It fits
//! into 80 columns and 24 lines, the least that a terminal is expected to have.

use ratatui::text::Line;

use super::{Room, draw};
use crate::language::tr;

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
    let text = [
        tr("The pages"),
        tr("  1 flow    the kernel queues the connections of the one listening socket;"),
        tr("            a worker takes one by accept(), and serves it"),
        tr("  2 memory  the same variable in each process, and what all of them share"),
        tr("  3 rates   how the kernel spreads the connections, and how many there are"),
        "",
        tr("Where a worker is"),
        tr("  accept()  it sleeps until the kernel has a connection for it"),
        tr("  recv()    it sleeps until its client sends bytes or closes"),
        tr("  send()    it returns bytes; it sleeps while the client does not read"),
        tr("  epoll_wait(), kevent()  it sleeps until any of its clients sends"),
        tr("  FOR is how long. With ≥ it was so before top began to look."),
        "",
        tr("Keys"),
        tr("  1 2 3, Tab            a page, the next page"),
        tr("  arrows, PgUp, PgDn    select a worker (also Home, End)"),
        tr("  k t s c               send it SIGKILL, SIGTERM, SIGSTOP, SIGCONT, for real"),
        tr("  + -                   ask the parent for one worker more, one fewer"),
        tr("  p                     hold the picture, and let it go on"),
        tr("  q, Esc, Ctrl-C        leave; the server goes on"),
        "",
        tr("Any key leads back."),
    ];
    text.iter().map(|line| Line::raw(draw::cut(line, room.width))).collect()
}
