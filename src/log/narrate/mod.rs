//! `--explain`: each step and each system call in plain words, apart from the code that
//! makes the call. A room has a file here, with a function for each call that it
//! narrates.

use std::fmt::Display;
use std::io;

use crate::error::strerror;

/// The target of the lines that `--explain` adds.
pub const EXPLAIN: &str = "explain";

/// Narrates a step or a system call, if the user asked for it. Only then are the
/// arguments looked at: telling may cost a system call, not telling may not.
macro_rules! explain {
    ($($text:tt)+) => {
        if ::log::log_enabled!(target: $crate::log::EXPLAIN, ::log::Level::Info) {
            ::log::info!(target: $crate::log::EXPLAIN, $($text)+)
        }
    };
}

/// Functions that narrate a step each: their texts, and the values in these.
macro_rules! steps {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),*) => $($text:literal $(, $value:expr)*;)+
    )+) => {
        $($(#[$doc])* pub(crate) fn $name($($argument: $type),*) {
            $(explain!($text $(, $value)*);)+
        })+
    };
}

/// The same for calls on a socket: the caller passes the socket, and the texts have its `fd`.
macro_rules! calls {
    ($(
        $(#[$doc:meta])*
        fn $name:ident($fd:ident $(, $argument:ident: $type:ty)*) => $($text:literal $(, $value:expr)*;)+
    )+) => {
        $($(#[$doc])* pub(crate) fn $name($fd: &impl std::os::fd::AsRawFd $(, $argument: $type)*) {
            let $fd = $fd.as_raw_fd();
            $(explain!($text $(, $value)*);)+
        })+
    };
}

pub mod client;
pub mod server;
pub mod worker;

/// What a call returned, and what that means; or why it failed.
fn outcome(result: &io::Result<()>, meaning: impl Display) -> String {
    match result {
        Ok(()) => format!(" = 0{meaning}"),
        Err(error) => format!(": {}", strerror(error)),
    }
}

/// What recv returned: the count of bytes, or 0 at the end of file.
fn received_text(length: usize, end_of_file: &str) -> String {
    match length {
        0 => format!("0: end of file, {end_of_file}"),
        _ => format!("{length}: so many bytes have come"),
    }
}
