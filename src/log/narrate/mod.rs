//! `--explain`: each step and each system call in plain words, apart from the code that
//! makes the call. A room has a file here, with a function for each call that it
//! narrates.
//!
//! `--explain=calls` is for a class: the calls that every introduction to sockets names, and
//! one short line for each, when it has returned. Only accept has a line before it as well,
//! because an idle worker spends its life in that call: without it nothing would show that the
//! worker waits. A line without ` = ` is a call that has not returned.

use std::fmt::Display;
use std::io;

use crate::error::strerror;
use crate::text::count;

/// The target of the lines that `--explain` adds.
pub const EXPLAIN: &str = "explain";

/// The target of the lines that `--explain=calls` adds.
pub const CALLS: &str = "calls";

/// Does this process narrate its calls?
pub fn is_on() -> bool {
    log::log_enabled!(target: EXPLAIN, log::Level::Info) || log::log_enabled!(target: CALLS, log::Level::Info)
}

/// Narrates a step or a system call, if the user asked for it. Only then are the
/// arguments looked at: telling may cost a system call, not telling may not.
macro_rules! explain {
    (CALLS, $($text:tt)+) => { explain!(@ $crate::log::narrate::CALLS, $($text)+) };
    (@ $target:expr, $($text:tt)+) => {
        if ::log::log_enabled!(target: $target, ::log::Level::Info) {
            ::log::info!(target: $target, $($text)+)
        }
    };
    ($($text:tt)+) => { explain!(@ $crate::log::narrate::EXPLAIN, $($text)+) };
}

/// The lines that a function narrates: texts, and the values in them. `calls` marks one that is
/// for `--explain=calls` alone, `both` one that is for that as well.
macro_rules! lines {
    () => {};
    (calls $text:literal $(, $value:expr)*; $($rest:tt)*) => {
        explain!(CALLS, $text $(, $value)*);
        lines!($($rest)*);
    };
    (both $text:literal $(, $value:expr)*; $($rest:tt)*) => {
        lines!(calls $text $(, $value)*; $text $(, $value)*; $($rest)*);
    };
    ($text:literal $(, $value:expr)*; $($rest:tt)*) => {
        explain!($text $(, $value)*);
        lines!($($rest)*);
    };
}

/// Functions that narrate a step each.
macro_rules! steps {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),*) { $($lines:tt)+ }
    )+) => {
        $($(#[$doc])* pub(crate) fn $name($($argument: $type),*) {
            lines!($($lines)+);
        })+
    };
}

/// The same for calls on a socket: the caller passes the socket, and the texts have its `fd`.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($fd:ident $(, $argument:ident: $type:ty)*) { $($lines:tt)+ }
    )+) => {
        $($(#[$doc])* pub(crate) fn $name($fd: &impl std::os::fd::AsRawFd $(, $argument: $type)*) {
            let $fd = $fd.as_raw_fd();
            lines!($($lines)+);
        })+
    };
}

pub mod client;
pub mod server;
pub mod worker;

/// What a call returned, and what that means; or why it failed.
fn outcome(result: &io::Result<()>, meaning: impl Display) -> String {
    match result {
        Ok(()) => format!("0{meaning}"),
        Err(error) => format!("-1: {}", strerror(error)),
    }
}

/// What recv returned: the number of bytes, or 0 at the end of file.
fn received_text(length: usize, end_of_file: &str) -> String {
    match length {
        0 => format!("0: end of file, {end_of_file}"),
        _ => format!("{length}: received {}", count(length as u64, "byte")),
    }
}

/// What send returned: the number of bytes.
fn sent_text(length: usize) -> String {
    format!("{length}: sent {}", count(length as u64, "byte"))
}
