//! What the README promises, tested on the binary as its users run it: processes,
//! signals, sockets, bytes counted. A module a promise; `common` is the fixture.
//!
//! Apart, as programs of their own, are the tests that want a process without the
//! harness's threads (`wakeup`, `sandbox`), that panic on purpose (`panic`), and whose
//! load wants the machine for itself (`overflow`).
//!
//! Blows that are struck a hundred times are struck a few times here, and in full with
//! `PREFORK_ECHO_TEST_FULL=1`, as CI does.

mod common;

mod bad_input;
mod bench;
mod bench_trouble;
mod client;
mod echo;
mod faults;
mod interleavings;
mod lack;
mod lessons;
mod log;
mod orphans;
mod pid_file;
mod rights;
mod scoreboard_file;
mod shared_socket;
mod shutdown;
mod status;
mod supervision;
mod top;
