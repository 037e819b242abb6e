//! Where Linux and macOS differ in what a socket does.

/// Does an accepted socket inherit the listening socket's time-outs
/// (`SO_RCVTIMEO`, `SO_SNDTIMEO`)? Linux copies them, which saves two system
/// calls a connection; macOS starts each connection without any.
pub const TIMEOUTS_ARE_INHERITED: bool = cfg!(target_os = "linux");

/// The smallest accept queue that `listen` can be asked for. Linux takes 0
/// (room for one connection); macOS takes 0 for the largest it has.
pub const SMALLEST_BACKLOG: i32 = if cfg!(target_os = "macos") { 1 } else { 0 };
