//! What the operating system offers and Rust's libraries don't wrap safely.
//!
//! The only `unsafe` code of the program is in these modules, each block under
//! the reason why it is sound; so are the few differences between Linux and
//! macOS. Nothing here knows what a worker serves or what a supervisor
//! decides.

pub mod clock;
pub mod credentials;
pub mod lock_file;
pub mod memory;
pub mod process;
pub mod readiness;
pub mod sandbox;
pub mod signal;
pub mod socket;
mod socket_list;
pub mod stdout;
