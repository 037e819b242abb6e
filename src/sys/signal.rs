//! A worker's signals: how it is woken from a blocking call, every time.
//!
//! A worker sleeps in `accept`, `recv` or `send`. A signal handler that only
//! stores a flag is not enough to wake it: when the signal comes after the
//! worker looked at the flag and before it blocks, it blocks all the same, and
//! nobody rings again. So the handler also starts an interval timer, the bell.
//! Each arm (SIGALRM) interrupts whichever call the worker is in by then,
//! until the worker has noticed and silences it. That costs nothing while no
//! signal comes, and needs neither poll nor a non-blocking socket.
//!
//! All handlers are installed without SA_RESTART, so that interrupted calls
//! return EINTR; that is why signal-hook, which sets it, is the parent's alone.
//! See signal(7), setitimer(2).
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};

/// From arm to arm. The longest that a worker can oversleep a signal.
const WAKE_INTERVAL: Duration = Duration::from_millis(10);

/// macOS doesn't tell a process of its parent's death, so there the bell never
/// quite falls silent: at each tick the worker looks whether it is an orphan.
const ORPHAN_POLL: Duration =
    if cfg!(target_os = "macos") { Duration::from_millis(250) } else { Duration::ZERO };

/// Set once and for all by SIGTERM.
static STOP: AtomicBool = AtomicBool::new(false);

/// Set by each signal, until the worker has noticed. A worker whose client never
/// lets it block is never interrupted, and looks here between its calls.
static PENDING: AtomicBool = AtomicBool::new(false);

extern "C" fn stop(_: libc::c_int) {
    STOP.store(true, Ordering::Relaxed);
    wake(0);
}

extern "C" fn wake(_: libc::c_int) {
    pending(0);
    arm();
}

/// That a handler has run is what makes the call return EINTR.
extern "C" fn pending(_: libc::c_int) {
    PENDING.store(true, Ordering::Relaxed);
}

/// Makes a freshly forked child answer signals as a worker does, and lets them
/// in: [`fork`](super::process::fork) left them blocked.
///
/// TERM asks it to stop; CONT is a nudge to look around (sent by the kernel
/// when the parent dies); what a terminal sends to the whole group, or people
/// to the parent, is left to the parent.
///
/// # Errors
/// None that a correct call can cause.
pub fn install_worker_handlers() -> nix::Result<()> {
    use SigHandler::{Handler, SigDfl, SigIgn};
    let parents =
        [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGTTIN, Signal::SIGTTOU];
    for signal in parents {
        set(signal, SigIgn)?;
    }
    set(Signal::SIGCHLD, SigDfl)?;
    // Rust's own handler looks for a stack overflow, and lets the first such signal
    // pass when somebody has sent it by kill. SIGBUS has an answer of memory's.
    set(Signal::SIGSEGV, SigDfl)?;
    // The handlers before the unblocking: with the parent's still in place, a
    // signal to this child would wake the parent through its pipe.
    set(Signal::SIGALRM, Handler(pending))?;
    set(Signal::SIGCONT, Handler(wake))?;
    set(Signal::SIGTERM, Handler(stop))?;
    disarm();
    SigSet::empty().thread_set_mask()
}

/// For the start of the program: lets all signals through, because a process
/// inherits what whoever started it had blocked, even through exec. And a log
/// file that reaches its limit (RLIMIT_FSIZE) is to be an error, not our death.
pub fn reset_signals() {
    let done = set(Signal::SIGXFSZ, SigHandler::SigIgn).and_then(|()| SigSet::empty().thread_set_mask());
    done.expect("SIGXFSZ and the empty set are valid, and no other error exists");
}

/// Has SIGTERM (or [`request_stop`]) asked this worker to stop?
#[inline]
pub fn stop_requested() -> bool {
    STOP.load(Ordering::Relaxed)
}

/// Has a signal come that the worker has not noticed?
#[inline]
pub fn is_pending() -> bool {
    PENDING.load(Ordering::Relaxed)
}

/// Asks this worker to stop as SIGTERM does, from within.
pub fn request_stop() {
    STOP.store(true, Ordering::Relaxed);
}

/// Starts the bell: from now on no call blocks for longer than 10 ms.
pub fn arm() {
    set_timer(WAKE_INTERVAL, WAKE_INTERVAL);
}

/// Stops the bell. Silence it first and look at the flag then: a signal that
/// comes between the two rings again.
pub fn disarm() {
    set_timer(ORPHAN_POLL, ORPHAN_POLL);
    PENDING.store(false, Ordering::Relaxed);
}

/// Ends this process after `limit` at the latest, wherever it is blocked.
/// Nothing that it is sent afterwards changes that, but a harder signal.
pub fn leave_within(limit: Duration) {
    // These two would start the bell, which is the same timer.
    let done = set(Signal::SIGTERM, SigHandler::SigIgn)
        .and_then(|()| set(Signal::SIGCONT, SigHandler::SigIgn))
        .and_then(|()| {
            // Or a arm that is under way would be the end already.
            set_timer(Duration::ZERO, Duration::ZERO);
            set(Signal::SIGALRM, SigHandler::SigDfl)
        });
    done.expect("these signals are valid, and no other error exists");
    set_timer(limit, Duration::ZERO);
}

/// Runs `write`, which may write to a terminal, with SIGTTOU blocked. Under
/// `stty tostop` a terminal sends it to a process in the background that writes,
/// unless it is blocked or ignored; the parent would take each one for an order
/// to have one worker fewer, and the write would never end. See termios(3).
pub fn without_ttou<T>(write: impl FnOnce() -> T) -> T {
    let mut ttou = SigSet::empty();
    ttou.add(Signal::SIGTTOU);
    let before = ttou.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = write();
    // An error here would mean that nothing was blocked before, either.
    let _ = before.and_then(|before| before.thread_set_mask());
    result
}

fn set(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers of this module call nothing but an atomic store and
    // setitimer, a bare system call that takes no lock and allocates nothing.
    unsafe { sigaction(signal, &action) }.map(drop)
}

fn set_timer(first: Duration, then: Duration) {
    let timeval = |duration: Duration| libc::timeval {
        tv_sec: duration.as_secs() as libc::time_t,
        tv_usec: duration.subsec_micros() as libc::suseconds_t,
    };
    let timer = libc::itimerval { it_value: timeval(first), it_interval: timeval(then) };
    // SAFETY: the pointer is to a whole itimerval, and null says that the old
    // value isn't wanted. It cannot fail: the times are within range.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}
