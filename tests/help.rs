//! `--help` is right, complete, and fits a terminal of 80 columns.

use std::process::Command;

use crate::common::binary;

/// What a command prints when it is asked for help, in 80 columns.
#[track_caller]
fn help(arguments: &[&str]) -> String {
    let mut command: Command = binary();
    let output = command.args(arguments).env("COLUMNS", "80").output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn help_shows_defaults_signals_exit_status_and_examples() {
    let text = help(&["--help"]);
    for part in [
        "Serving:",
        "Supervision:",
        "Log:",
        "[default: 127.0.0.1:7777]",
        "[default: 4]",
        "[default: 10s]",
        "Signals to the parent:",
        "Exit status:",
        "Examples:",
        "--max-connections",
        "PREFORK_ECHO_",
    ] {
        assert!(text.contains(part), "no {part:?} in\n{text}");
    }
}

#[test]
fn no_line_of_any_help_is_wider_than_80_columns() {
    for command in ["", "status", "top", "client", "bench", "completions", "man"] {
        for option in ["-h", "--help"] {
            let arguments: Vec<_> = [command, option].into_iter().filter(|word| !word.is_empty()).collect();
            for line in help(&arguments).lines() {
                assert!(line.chars().count() <= 80, "{arguments:?}: {line}");
            }
        }
    }
}

/// The headings of the tables that stand after the options.
const TABLES: [&str; 7] =
    ["Signals to the parent:", "Exit status:", "Keys:", "Modes:", "Environment:", "Files:", "Examples:"];

/// Where the second column of a row begins: after two spaces or more. None: the row goes on with
/// the second column of the last one.
fn second_column(row: &str) -> Option<usize> {
    let is_new = !row[2..].starts_with(' ');
    let gap = row[2..].find("  ").filter(|_| is_new)? + 2;
    Some(gap + row[gap..].find(|letter| letter != ' ')?)
}

#[test]
fn the_second_column_of_each_table_of_help_is_straight() {
    let mut tables = 0;
    for command in ["", "status", "top", "client", "bench", "completions", "man"] {
        let text = if command.is_empty() { help(&["-h"]) } else { help(&[command, "-h"]) };
        let mut lines = text.lines();
        while let Some(heading) = lines.find(|line| TABLES.contains(line)) {
            let rows: Vec<&str> = lines.by_ref().take_while(|line| line.starts_with("  ")).collect();
            let column = second_column(rows[0]).unwrap_or_else(|| panic!("{heading} {rows:#?}"));
            for row in &rows {
                let begins = second_column(row).unwrap_or_else(|| row.len() - row.trim_start().len());
                assert_eq!(begins, column, "{command} {heading} {row}");
            }
            assert!(rows.len() >= 2, "{command} {heading} {rows:?}");
            tables += 1;
        }
    }
    assert_eq!(tables, 13, "the headings have changed");
}
