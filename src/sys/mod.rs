//! What the operating system offers and Rust's libraries don't wrap safely.
//!
//! All `unsafe` code of the program is here, each block under the reason why it is
//! sound, and so are the differences between Linux and macOS. Nothing here decides
//! what the program does, and nothing prints. The files have no
//! order: each stands for one facility of the system.

pub mod clock;
pub mod credentials;
pub mod descriptors;
pub(crate) mod lock_file;
pub mod memory;
pub mod poller;
pub mod process;
pub mod readiness;
pub mod sandbox;
pub mod signal;
pub mod socket;
mod socket_list;
pub mod splice;
pub(crate) mod stdout;
