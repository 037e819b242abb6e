//! The workers as a table: the lines of `status`, and of the log on SIGUSR1. A narrow
//! terminal gets fewer columns.

use crate::monitor::format;
use crate::scoreboard::snapshot::Worker;

/// A column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    heading: &'static str,
    /// In characters.
    width: usize,
    /// Its place in the table, from the left.
    place: usize,
    /// Words stand to the left, numbers to the right.
    is_number: bool,
    /// What it says of a worker, in so many characters.
    cell: Cell,
}

type Cell = fn(&Worker, usize) -> Option<String>;

const fn words(heading: &'static str, width: usize, place: usize, cell: Cell) -> Column {
    Column { heading, width, place, is_number: false, cell }
}

const fn number(heading: &'static str, width: usize, place: usize, cell: Cell) -> Column {
    Column { heading, width, place, is_number: true, cell }
}

const CLIENT: &str = "CLIENT";

/// A client's address in full, but for some of IPv6.
const WHOLE_CLIENT: usize = 21;

/// The most important first: a narrow table leaves out the last ones.
const COLUMNS: [Column; 9] = [
    number("SLOT", 4, 0, |worker, _| Some(worker.slot.to_string())),
    number("PID", 7, 1, |worker, _| worker.pid.map(|pid| pid.to_string())),
    words("STATE", 8, 2, |worker, _| Some(worker.state_name().into())),
    number("SERVED", 6, 5, |worker, _| Some(format::number(worker.served.connections))),
    number("PRIVATE", 7, 7, |worker, _| worker.private_counter.map(format::number)),
    words(CLIENT, 17, 4, client),
    number("RESTARTS", 8, 8, |worker, _| Some(format::number(worker.restarts))),
    number("FOR", 5, 3, |worker, _| worker.since.map(format::span)),
    number("BYTES", 6, 6, |worker, _| Some(format::number(worker.served.bytes))),
];

/// The address of the only client, or an arrow for each of several, and their number.
fn client(worker: &Worker, width: usize) -> Option<String> {
    match worker.clients {
        Some(clients @ 2..) => {
            let number = format::number(clients);
            let arrows = width.saturating_sub(number.len() + 1).min(clients as usize);
            Some(format!("{} {number}", "→".repeat(arrows)))
        }
        _ => worker.peer.map(|peer| format::address(peer, width)),
    }
}

/// The columns that fit into `room` characters, in the order of their places.
pub fn columns(room: usize) -> Vec<Column> {
    let mut left = room + 1; // The first has no space before it.
    let mut columns = COLUMNS.to_vec();
    columns.retain(|column| {
        let fits = column.width < left;
        left -= if fits { column.width + 1 } else { 0 };
        fits
    });
    if let Some(client) = columns.iter_mut().find(|column| column.heading == CLIENT) {
        client.width = WHOLE_CLIENT.min(client.width + left);
    }
    columns.sort_by_key(|column| column.place);
    columns
}

/// The line of headings.
pub fn headings(columns: &[Column]) -> String {
    line(columns, |column| column.heading.into())
}

/// A worker's line.
pub fn row(columns: &[Column], worker: &Worker) -> String {
    line(columns, |column| (column.cell)(worker, column.width).unwrap_or_else(|| "-".into()))
}

fn line(columns: &[Column], text: impl Fn(&Column) -> String) -> String {
    let cell = |column: &Column| match column.is_number {
        true => format!("{:>1$}", text(column), column.width),
        false => format!("{:<1$}", text(column), column.width),
    };
    columns.iter().map(cell).collect::<Vec<_>>().join(" ").trim_end().to_owned()
}
