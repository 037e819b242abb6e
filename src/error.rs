//! How the program ends: the exit statuses that scripts rely on, and the line that says
//! why it could not run. All processes take the words for a system's error from here.

use std::fmt;
use std::io;

use nix::errno::Errno;

/// The exit status. Wrong usage, status 2, is clap's to report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Every connection was served to its end; for a client, every byte came back.
    Success = 0,
    /// It could not run, or a byte did not come back; a line on stderr says why.
    Failed = 1,
    /// Shutdown had to be forced, and a connection may have been cut.
    Forced = 3,
    /// Workers kept crashing at their start.
    GaveUp = 4,
}

impl Exit {
    /// The number that the shell sees.
    pub fn code(self) -> u8 {
        self as u8
    }
}

/// Why the server could not run, and what the user can do about it.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// `what` could not be done because of `error`; `remedy` helps, unless the system has
    /// run out of a resource. Printed as `cannot bind 127.0.0.1:7777: address already in
    /// use; choose …`.
    pub(crate) fn new(what: impl fmt::Display, error: &io::Error, remedy: impl fmt::Display) -> Self {
        let reason = strerror(error);
        let remedy = shortage(error).map_or_else(|| remedy.to_string(), str::to_owned);
        Error(format!("cannot {what}: {reason}; {remedy}"))
    }

    /// A failure whose text is complete.
    pub(crate) fn plain(text: impl Into<String>) -> Self {
        Error(text.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// The system's own words for an error (strerror(3)), as a part of a sentence. Those of musl
/// differ ("No file descriptors available"): there they are nix's, which are those of glibc.
pub(crate) fn strerror(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        // nix's EAGAIN is "Try again".
        Some(number) if cfg!(target_env = "musl") && number != Errno::EAGAIN as i32 => {
            Errno::from_raw(number).desc().to_owned()
        }
        _ => error.to_string(),
    };
    let text = text.split(" (os error").next().unwrap_or_default();
    let text = text.trim_start_matches("failed to lookup address information: ");
    let mut chars = text.chars();
    match (chars.next(), chars.clone().next()) {
        // "I/O error" keeps its capital.
        (Some(first), Some(second)) if second.is_lowercase() => first.to_lowercase().chain(chars).collect(),
        _ => text.to_owned(),
    }
}

/// The remedy for an error that says that the system has run out of a resource: no other
/// address, file or option would help. None: it is another error.
pub(crate) fn shortage(error: &io::Error) -> Option<&'static str> {
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
