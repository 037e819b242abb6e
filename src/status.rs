//! The scoreboard as a table, for USR1.

use crate::scoreboard::Scoreboard;

/// A line of headings, then a line a process, in the order of their slots.
pub fn table(scoreboard: Scoreboard) -> Vec<String> {
    let mut rows: Vec<_> = scoreboard.rows().filter_map(|row| Some((row.slot(), row.pid()?, row))).collect();
    rows.sort_by_key(|(slot, pid, _)| (*slot, *pid));
    let mut lines = vec![format!(
        "{:>4} {:>8} {:<9} {:>12} {:>16} {:>8}",
        "SLOT", "PID", "STATE", "CONNECTIONS", "BYTES", "RESTARTS"
    )];
    for (slot, pid, row) in rows {
        lines.push(format!(
            "{slot:>4} {:>8} {:<9} {:>12} {:>16} {:>8}",
            pid.as_raw(),
            row.state().name(),
            row.connections(),
            row.bytes(),
            row.restarts()
        ));
    }
    lines
}
