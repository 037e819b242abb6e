//! The workers as a table: the lines of `status`, and the leaves of `top`'s tree. A narrow
//! terminal gets fewer columns.

use crate::monitor::format;
use crate::scoreboard::snapshot::Worker;

/// A column, and its width in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    kind: ColumnKind,
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

/// The most important first: a narrow table leaves out the last ones.
const COLUMNS: [Column; 9] = [
    Column { kind: ColumnKind::Slot, width: 4 },
    Column { kind: ColumnKind::Pid, width: 7 },
    Column { kind: ColumnKind::State, width: 8 },
    Column { kind: ColumnKind::Served, width: 6 },
    Column { kind: ColumnKind::Private, width: 7 },
    Column { kind: ColumnKind::Client, width: 17 },
    Column { kind: ColumnKind::Restarts, width: 8 },
    Column { kind: ColumnKind::Since, width: 5 },
    Column { kind: ColumnKind::Bytes, width: 6 },
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
    for column in columns.iter_mut().filter(|column| column.kind == ColumnKind::Client) {
        column.width = WHOLE_CLIENT.min(column.width + left);
    }
    columns.sort_by_key(|column| column.kind);
    columns
}

/// The line of headings.
pub fn headings(columns: &[Column]) -> String {
    line(columns, |column| {
        String::from(match column.kind {
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
        let text = match column.kind {
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
        .map(|column| match column.kind {
            ColumnKind::State | ColumnKind::Client => format!("{:<1$}", cell(column), column.width),
            _ => format!("{:>1$}", cell(column), column.width),
        })
        .collect();
    cells.join(" ").trim_end().to_owned()
}
