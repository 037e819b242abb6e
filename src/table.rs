//! The workers as a table: for `status`, and as the leaves of `top`'s tree.

use crate::short;
use crate::snapshot::Worker;

/// A column, and how wide it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    of: Of,
    width: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Of {
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
    Column { of: Of::Slot, width: 4 },
    Column { of: Of::Pid, width: 7 },
    Column { of: Of::State, width: 8 },
    Column { of: Of::Served, width: 6 },
    Column { of: Of::Private, width: 7 },
    Column { of: Of::Client, width: 17 },
    Column { of: Of::Restarts, width: 8 },
    Column { of: Of::Since, width: 5 },
    Column { of: Of::Bytes, width: 6 },
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
    for column in columns.iter_mut().filter(|column| column.of == Of::Client) {
        column.width = WHOLE_CLIENT.min(column.width + left);
    }
    columns.sort_by_key(|column| column.of);
    columns
}

/// The line of headings.
pub fn headings(columns: &[Column]) -> String {
    line(columns, |column| {
        String::from(match column.of {
            Of::Slot => "SLOT",
            Of::Pid => "PID",
            Of::State => "STATE",
            Of::Since => "FOR",
            Of::Client => "CLIENT",
            Of::Served => "SERVED",
            Of::Bytes => "BYTES",
            Of::Private => "PRIVATE",
            Of::Restarts => "RESTARTS",
        })
    })
}

/// A worker's line.
pub fn row(columns: &[Column], worker: &Worker) -> String {
    let process = worker.process.as_ref();
    line(columns, |column| {
        let text = match column.of {
            Of::Slot => Some(worker.slot.to_string()),
            Of::Pid => process.and_then(|process| process.pid).map(|pid| pid.to_string()),
            Of::State => Some(worker.state_name().into()),
            Of::Since => process.map(|process| short::span(process.since)),
            Of::Client => {
                process.and_then(|process| process.peer).map(|peer| short::address(peer, column.width))
            }
            Of::Served => Some(short::number(worker.served.connections)),
            Of::Bytes => Some(short::number(worker.served.bytes)),
            Of::Private => process.map(|process| short::number(process.private_counter)),
            Of::Restarts => Some(short::number(worker.restarts)),
        };
        text.unwrap_or_else(|| "-".into())
    })
}

/// Words to the left, numbers to the right.
fn line(columns: &[Column], cell: impl Fn(&Column) -> String) -> String {
    let cells: Vec<_> = columns
        .iter()
        .map(|column| match column.of {
            Of::State | Of::Client => format!("{:<1$}", cell(column), column.width),
            _ => format!("{:>1$}", cell(column), column.width),
        })
        .collect();
    cells.join(" ").trim_end().to_owned()
}
