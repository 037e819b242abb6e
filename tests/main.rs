//! The promises that users rely on, checked on servers that run as they run them: a
//! module for each kind of promise. One crate, so that all is linked once and runs in
//! parallel; what wants a process of its own stands in alone/.
//!
//! Tests that load the machine or measure times hold `common::heavy()`, so that they run
//! one at a time. What repeats a blow asks `common::rounds` how often: a few times, and
//! in full with `PREFORK_ECHO_TEST_FULL=1`, as CI does. `cargo test shutdown` runs one module.

mod common;

mod bad_input;
mod bench;
mod bench_trouble;
mod bulk;
mod client;
mod client_proxy_header;
mod client_terminal;
mod echo;
mod explain;
mod faults;
mod help;
mod interleavings;
mod lack;
mod lessons;
mod log;
mod manual;
mod models;
mod models_compared;
mod models_shutdown;
mod openmetrics;
mod orphans;
mod overflow;
mod pid_file;
mod pool;
mod proxy;
mod rights;
mod scoreboard_file;
mod service;
mod shared_socket;
mod shutdown;
mod status;
mod supervision;
mod top;
mod top_pages;
mod upgrade;
