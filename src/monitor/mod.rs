//! A running server seen from outside. `status` and `top` read its scoreboard in processes
//! of their own; the parent uses the same table for SIGUSR1.
//!
//! In the order of use: `status` prints a snapshot, `openmetrics` makes it what Prometheus
//! reads, `table` makes its rows, `distribution`
//! shows how evenly something is spread over the slots, `format` makes numbers short, and
//! `top` shows all of it live.

pub mod distribution;
pub mod format;
pub mod openmetrics;
pub mod status;
pub mod table;
pub mod top;
