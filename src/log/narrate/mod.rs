//! `--explain`: each step and each system call in plain words, apart from the code that
//! makes the call. A room has a file here, with a function for each call that it
//! narrates.

pub mod client;
pub mod server;
pub mod worker;

/// The target of the lines that `--explain` adds.
pub const EXPLAIN: &str = "explain";

/// Narrates a step or a system call, if the user asked for it. Only then are the
/// arguments looked at: telling may cost a system call, not telling may not.
#[macro_export]
macro_rules! explain {
    ($($text:tt)+) => {
        if ::log::log_enabled!(target: $crate::log::EXPLAIN, ::log::Level::Info) {
            ::log::info!(target: $crate::log::EXPLAIN, $($text)+)
        }
    };
}
