//! Looking at a running server from outside: its scoreboard as a table, as JSON, or live.

pub mod distribution;
pub mod format;
pub mod status;
pub mod table;
pub mod top;
