//! How the program ends: the exit statuses that scripts rest on, and the one
//! line that a user gets when it could not run.

use std::fmt;
use std::io::{self, Write};
use std::process::{ExitCode, Termination};

use nix::errno::Errno;

use crate::sys::stdout;

/// The exit status. Wrong usage, status 2, is clap's to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: every client was served to its end; or every byte of ours has come back.
    Success,
    /// 1: it could not run, or a byte has not come back; a line on stderr says why.
    Failed,
    /// 3: shutdown had to be forced, and a client may have been cut.
    Forced,
    /// 4: workers kept crashing at their start.
    GaveUp,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        match self {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Forced => 3,
            Exit::GaveUp => 4,
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        self.code().into()
    }
}

/// Why the server could not run, and what the user can do about it.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// `what` could not be done because of `error`; `remedy` mends it, unless the
    /// system has run out of something. Printed as `cannot bind 127.0.0.1:7777:
    /// address already in use; choose …`.
    pub fn new(what: impl fmt::Display, error: &io::Error, remedy: impl fmt::Display) -> Self {
        let reason = strerror(error);
        Error(match shortage(error) {
            Some(remedy) => format!("cannot {what}: {reason}; {remedy}"),
            None => format!("cannot {what}: {reason}; {remedy}"),
        })
    }

    /// A failure that speaks for itself.
    pub fn plain(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Is there a stdout to print on? To be asked before the work that would be in vain.
///
/// # Errors
/// If it was closed when the program started.
pub fn check_stdout() -> Result<(), Error> {
    match stdout::was_closed() {
        true => Err(Error::plain(
            "cannot write to stdout: it is closed; let it lead to a terminal, a file, or /dev/null",
        )),
        false => Ok(()),
    }
}

/// Prints a text and a new line on stdout. Who reads no further, as head does, has
/// seen enough: that is no error.
///
/// # Errors
/// If it cannot be written.
pub fn print(text: &str) -> Result<(), Error> {
    check_stdout()?;
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Error::new("write to stdout", &error, "look where it leads"))
        }
        _ => Ok(()),
    }
}

/// Tells the user something on stderr: one line.
pub fn eprint_line(what: &impl fmt::Display) {
    // Not eprintln: it panics where nobody reads stderr. One write: others write, too.
    let _ = io::stderr().write_all(format!("prefork-echo: {what}\n").as_bytes());
}

/// The system's own words for an error (strerror(3)), ready to stand within a
/// sentence.
pub fn strerror(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text.trim_start_matches("failed to lookup address information: ");
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "I/O error" keeps its capital.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// The remedy for an error that says that the system has run out of something: no
/// other address, file or option would mend that. None: the error says something else.
pub fn shortage(error: &io::Error) -> Option<&'static str> {
    match Errno::from_raw(error.raw_os_error()?) {
        Errno::EMFILE => Some("raise the limit on open files (ulimit -n)"),
        Errno::ENFILE => {
            Some("raise the system's limit on open files (sysctl fs.file-max; on macOS kern.maxfiles)")
        }
        Errno::ENOMEM => Some("free some memory, or raise the limit on it (ulimit -v)"),
        Errno::ENOBUFS => Some("free some memory"),
        _ => None,
    }
}
