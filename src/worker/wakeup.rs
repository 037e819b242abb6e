//! A worker's signals, and the wakeup timer, which ends the blocking call that it is in.
//!
//! A handler that only stores a flag is not enough: when the signal comes after the worker
//! has read the flag and before it blocks, the call blocks all the same. So the handler
//! also arms an interval timer. Each SIGALRM of it interrupts the call that the worker is
//! in by then, until the worker has noticed and disarms the timer. That costs nothing while
//! no signal comes, and needs neither poll nor a non-blocking socket.
//!
//! No handler restarts a call (SA_RESTART): an interrupted one fails with EINTR. signal-hook
//! would, so it is only used in the parent. See signal(7), setitimer(2).

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::sys::signal::{self, ThreadId};

/// The interval of the timer: the longest that a call blocks in spite of a signal.
const INTERVAL_MS: u64 = 10;
const INTERVAL: Duration = Duration::from_millis(INTERVAL_MS);

/// The interval while no signal is pending. Where the kernel does not signal the parent's
/// death, the worker checks now and then whether it is an orphan.
const ORPHAN_POLL: Duration =
    if signal::PARENT_DEATH_IS_SIGNALLED { Duration::ZERO } else { Duration::from_millis(250) };

/// The timer's signal is for the process, and interrupts one of its threads only. This one is
/// for a certain thread (tgkill(2)), and has no other effect.
const WAKES_A_THREAD: Signal = Signal::SIGUSR2;

/// Makes a freshly forked child answer signals as a worker does, and unblocks them:
/// [`fork`](crate::sys::process::fork) left them blocked.
///
/// # Errors
/// None that a correct call can cause.
pub fn install_handlers() -> nix::Result<()> {
    use Signal::*;
    // A terminal sends these to the whole group, and users to the parent. They are the
    // parent's to answer.
    for signal in [SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGTTIN, SIGTTOU] {
        signal::ignore(signal)?;
    }
    signal::set_default(SIGCHLD)?;
    // Rust's own handler checks for a stack overflow, and ignores the first such signal that
    // was sent by kill. SIGBUS has a handler of sys::memory.
    signal::set_default(SIGSEGV)?;
    // The handlers before the unblocking: with the parent's still in place, a
    // signal to this child would wake the parent through its pipe.
    signal::set_flag_on(SIGALRM)?;
    signal::set_flag_on(WAKES_A_THREAD)?;
    // The kernel sends it when the parent dies.
    signal::set_flag_and_arm_on::<INTERVAL_MS>(SIGCONT)?;
    signal::set_flag_and_arm_on::<INTERVAL_MS>(SIGTERM)?;
    disarm();
    signal::unblock_all()
}

/// In a thread that is not the first one: from now on the signals that a worker answers reach
/// the first thread, and only [`wake_thread`] interrupts this one.
pub fn leave_signals_to_first_thread() {
    signal::block(&[Signal::SIGTERM, Signal::SIGCONT, Signal::SIGALRM]);
}

/// Interrupts the call that a thread is in. If it is in none, that has no effect, so repeat
/// it until the thread has noticed.
pub fn wake_thread(thread: ThreadId) {
    thread.interrupt(WAKES_A_THREAD);
}

/// Has SIGTERM (or [`request_stop`]) asked this worker to stop?
#[inline]
pub fn stop_requested() -> bool {
    signal::flag(Signal::SIGTERM).load(Relaxed)
}

/// Asks this worker to stop, as SIGTERM does.
pub fn request_stop() {
    signal::flag(Signal::SIGTERM).store(true, Relaxed);
}

/// Has the timer run out since it was disarmed? A worker whose peer never lets it block is
/// never interrupted, and asks here between its calls.
#[inline]
pub fn has_fired() -> bool {
    signal::flag(Signal::SIGALRM).load(Relaxed)
}

/// Starts the timer: from now on no call blocks for longer than 10 ms.
pub fn arm() {
    signal::set_timer(INTERVAL, INTERVAL);
}

/// Stops the timer. Call it before the flags are read: a signal that comes in between
/// arms the timer again.
pub fn disarm() {
    signal::set_timer(ORPHAN_POLL, ORPHAN_POLL);
    signal::flag(Signal::SIGALRM).store(false, Relaxed);
}

/// Ends this process after `limit` at the latest, wherever it is blocked. No signal
/// afterwards changes that, unless it ends the process at once.
pub fn exit_within(limit: Duration) {
    // The handlers of these two would arm the same timer.
    let done =
        signal::ignore(Signal::SIGTERM).and_then(|()| signal::ignore(Signal::SIGCONT)).and_then(|()| {
            // A timer that still ran would end the process at once.
            signal::set_timer(Duration::ZERO, Duration::ZERO);
            signal::set_default(Signal::SIGALRM)
        });
    done.expect("these signals are valid, and no other error exists");
    signal::set_timer(limit, Duration::ZERO);
}
