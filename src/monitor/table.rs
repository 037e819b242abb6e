//! The workers as a table: for `status`, and as the leaves of `top`'s tree.

use crate::monitor::format;
use crate::scoreboard::snapshot::Worker;

/// A column, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    of: ColumnKind,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ColumnKind {
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

/// The most important first: what has no room in a narrow table goes from the end.
const COLUMNS: [Column; 9] = [
    Column { of: ColumnKind::Slot, width: 4 },
    Column { of: ColumnKind::Pid, width: 7 },
    Column { of: ColumnKind::State, width: 8 },
    Column { of: ColumnKind::Served, width: 6 },
    Column { of: ColumnKind::Private, width: 7 },
    Column { of: ColumnKind::Client, width: 17 },
    Column { of: ColumnKind::Restarts, width: 8 },
    Column { of: ColumnKind::Since, width: 5 },
    Column { of: ColumnKind::Bytes, width: 6 },
];

/// A client's address in full, but for some of IPv6.
const WHOLE_CLIENT: usize = 21;

/// The columns that fit into `room` characters, in the order of their places.
pub fn columns(room: usize) -> Vec<Column> {
    let mut left = room + 1; // The first has no space before it.
    let mut columns = Vec::new();
    for column in COLUMNS {
        if column.width < left {
            left -= column.width + 1;
            columns.push(column);
        }
    }
    for column in columns.iter_mut().filter(|column| column.of == ColumnKind::Client) {
        column.width = WHOLE_CLIENT.min(column.width + left);
    }
    columns.sort_by_key(|column| column.of);
    columns
}

/// The line of headings.
pub fn headings(columns: &[Column]) -> String {
    line(columns, |column| {
        String::from(match column.of {
            ColumnKind::Slot => "SLOT",
            ColumnKind::Pid => "PID",
            ColumnKind::State => "STATE",
            ColumnKind::Since => "FOR",
            ColumnKind::Client => "CLIENT",
            ColumnKind::Served => "SERVED",
            ColumnKind::Bytes => "BYTES",
            ColumnKind::Private => "PRIVATE",
            ColumnKind::Restarts => "RESTARTS",
        })
    })
}

/// A worker's line.
pub fn row(columns: &[Column], worker: &Worker) -> String {
    let process = worker.process.as_ref();
    line(columns, |column| {
        let text = match column.of {
            ColumnKind::Slot => Some(worker.slot.to_string()),
            ColumnKind::Pid => process.and_then(|process| process.pid).map(|pid| pid.to_string()),
            ColumnKind::State => Some(worker.state_name().into()),
            ColumnKind::Since => process.map(|process| format::span(process.since)),
            ColumnKind::Client => {
                process.and_then(|process| process.peer).map(|peer| format::address(peer, column.width))
            }
            ColumnKind::Served => Some(format::number(worker.served.connections)),
            ColumnKind::Bytes => Some(format::number(worker.served.bytes)),
            ColumnKind::Private => process.map(|process| format::number(process.private_counter)),
            ColumnKind::Restarts => Some(format::number(worker.restarts)),
        };
        text.unwrap_or_else(|| "-".into())
    })
}

/// Words to the left, numbers to the right.
fn line(columns: &[Column], cell: impl Fn(&Column) -> String) -> String {
    let cells: Vec<_> = columns
        .iter()
        .map(|column| match column.of {
            ColumnKind::State | ColumnKind::Client => format!("{:<1$}", cell(column), column.width),
            _ => format!("{:>1$}", cell(column), column.width),
        })
        .collect();
    cells.join(" ").trim_end().to_owned()
}
