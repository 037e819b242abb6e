//! A signal that comes between the check of the flag and the blocking call wakes
//! the worker.
//!
//! In the server that gap is far too short to be hit on purpose, so this test
//! widens it: a child checks the flag, waits, and only then blocks. The test
//! forks, which wants a single thread; so it is a program of its own, without
//! the threads of the usual test harness.

use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::AsRawFd;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use prefork_echo::sys::process;
use prefork_echo::worker::wakeup;

const GAP: Duration = Duration::from_millis(3);

/// Checks the flag, says so, waits, and blocks where nothing ever comes.
fn check_then_block(mut told: PipeWriter, silent: &PipeReader) -> u8 {
    wakeup::install_handlers().expect("signals can be set");
    if wakeup::stop_requested() {
        return 1; // Too early: the gap was missed.
    }
    told.write_all(b"!").expect("the parent listens");
    let start = Instant::now();
    while start.elapsed() < GAP {
        std::hint::spin_loop();
    }
    // nix's read, unlike std's on some types, returns on a signal.
    match nix::unistd::read(silent, &mut [0]) {
        Err(nix::errno::Errno::EINTR) if wakeup::stop_requested() => 0,
        _ => 2,
    }
}

fn main() {
    let (silent, _kept_open) = pipe().expect("a pipe");
    for round in 0..100 {
        let (mut said, told) = pipe().expect("a pipe");
        let mut told = Some(told);
        let child = process::fork(|| {
            let _ = nix::unistd::close(said.as_raw_fd());
            check_then_block(told.take().expect("taken once"), &silent)
        });
        let child = child.expect("a process more");
        drop(told);
        said.read_exact(&mut [0]).expect("the child says that it has looked");
        kill(child, Signal::SIGTERM).expect("the child lives");

        let start = Instant::now();
        let status = loop {
            match waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("it is our child") {
                WaitStatus::StillAlive if start.elapsed() < Duration::from_secs(5) => thread::yield_now(),
                WaitStatus::StillAlive => {
                    let _ = kill(child, Signal::SIGKILL);
                    panic!("round {round}: the wake-up was lost");
                }
                status => break status,
            }
        };
        assert_eq!(status, WaitStatus::Exited(child, 0), "round {round}");
    }
    println!("test a_signal_just_before_a_blocking_call_is_not_lost ... ok");
}
