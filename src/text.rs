//! Text for the user: lines on stdout and stderr, and plurals. The log has its own room,
//! [`log`](crate::log).

use std::fmt;
use std::io::{self, Write};

use crate::error::Error;
use crate::sys::stdout;

/// "1 connection", "2 connections".
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Checks that there is a stdout. Call it before work whose result would be lost.
///
/// # Errors
/// If stdout was closed when the program started.
pub(crate) fn check_stdout() -> Result<(), Error> {
    match stdout::was_closed() {
        true => Err(Error::plain(
            "cannot write to stdout: it is closed; let it lead to a terminal, a file, or /dev/null",
        )),
        false => Ok(()),
    }
}

/// Prints a text and a new line on stdout. A reader that has closed its end, such as head,
/// needs no more: that is no error.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Error> {
    check_stdout()?;
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new("write to stdout", &error, "look where it leads"))
        }
        _ => Ok(()),
    }
}

/// Prints one line on stderr.
pub fn eprint_line(what: &impl fmt::Display) {
    // Not eprintln: it panics if stderr is closed. One write, because other processes write
    // there as well.
    let _ = io::stderr().write_all(format!("prefork-echo: {what}\n").as_bytes());
}
