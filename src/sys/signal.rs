//! Signals: handlers that store a flag, the interval timer, the mask of blocked signals.
//!
//! A handler may call only what is async-signal-safe (signal-safety(7)). Those here store
//! an atomic flag, and some of them arm the interval timer. None is installed with
//! SA_RESTART, so an interrupted call fails with EINTR. Which signals mean what is decided
//! by the callers.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nix::libc;
#[cfg(not(target_os = "linux"))]
use nix::sys::pthread::Pthread;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, sigaction};
#[cfg(target_os = "linux")]
use nix::unistd::Pid;

/// Does the kernel signal the death of a process's parent, where that was asked for?
/// Linux: prctl(2), PR_SET_PDEATHSIG. macOS has no such signal.
pub const PARENT_DEATH_IS_SIGNALLED: bool = cfg!(target_os = "linux");

/// One flag for each signal, by its number.
static FLAGS: [AtomicBool; 32] = [const { AtomicBool::new(false) }; 32];

/// The flag that the handlers of this signal set.
#[inline]
pub fn flag(signal: Signal) -> &'static AtomicBool {
    &FLAGS[signal as usize]
}

/// That a handler has run makes the interrupted call return EINTR.
extern "C" fn set_flag(number: libc::c_int) {
    if let Some(flag) = FLAGS.get(number as usize) {
        flag.store(true, Ordering::Relaxed);
    }
}

extern "C" fn set_flag_and_arm<const MILLIS: u64>(number: libc::c_int) {
    set_flag(number);
    set_timer(Duration::from_millis(MILLIS), Duration::from_millis(MILLIS));
}

/// From now on this signal has its default effect.
///
/// # Errors
/// `EINVAL` for SIGKILL and SIGSTOP, here and below.
pub fn set_default(signal: Signal) -> nix::Result<()> {
    install(signal, SigHandler::SigDfl)
}

/// From now on this signal is ignored.
///
/// # Errors
/// As [`set_default`].
pub fn ignore(signal: Signal) -> nix::Result<()> {
    install(signal, SigHandler::SigIgn)
}

/// From now on this signal sets its flag, and interrupts a blocking call.
///
/// # Errors
/// As [`set_default`].
pub fn set_flag_on(signal: Signal) -> nix::Result<()> {
    install(signal, SigHandler::Handler(set_flag))
}

/// As [`set_flag_on`]; and the timer starts, with an interval of so many milliseconds.
///
/// # Errors
/// As [`set_default`].
pub fn set_flag_and_arm_on<const MILLIS: u64>(signal: Signal) -> nix::Result<()> {
    install(signal, SigHandler::Handler(set_flag_and_arm::<MILLIS>))
}

/// Blocks signals for the calling thread.
pub fn block(signals: &[Signal]) {
    let set: SigSet = signals.iter().copied().collect();
    set.thread_block().expect("the signals are valid, and no other error exists");
}

/// Unblocks all signals. Those that were sent meanwhile come at once.
///
/// # Errors
/// None that exists.
pub fn unblock_all() -> nix::Result<()> {
    SigSet::empty().thread_set_mask()
}

/// For the start of the program: unblocks all signals, because a process inherits, even
/// through exec, what its parent had blocked. A log file that reaches its limit
/// (RLIMIT_FSIZE) becomes an error, and no longer terminates the process.
pub fn reset_signals() {
    let done = ignore(Signal::SIGXFSZ).and_then(|()| unblock_all());
    done.expect("SIGXFSZ and the empty set are valid, and no other error exists");
}

/// Runs `write`, which may write to a terminal, with SIGTTOU blocked. Under
/// `stty tostop` a terminal sends it to a process in the background that writes,
/// unless it is blocked or ignored; the parent would take each one for an order
/// to have one worker fewer, and the write would never end. See termios(3).
pub fn without_ttou<T>(write: impl FnOnce() -> T) -> T {
    let before = SigSet::from(Signal::SIGTTOU).thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let result = write();
    // An error here would mean that nothing was blocked before, either.
    let _ = before.and_then(|before| before.thread_set_mask());
    result
}

fn install(signal: Signal, handler: SigHandler) -> nix::Result<()> {
    let action = SigAction::new(handler, SaFlags::empty(), SigSet::empty());
    // SAFETY: the handlers of this module call nothing but an atomic store and
    // setitimer, a bare system call that takes no lock and allocates nothing.
    unsafe { sigaction(signal, &action) }.map(drop)
}

/// Sets the interval timer, which sends SIGALRM: after `first`, and then each time after
/// `interval`. A `first` of zero stops it; an `interval` of zero lets it run out once.
pub fn set_timer(first: Duration, interval: Duration) {
    let timeval = |duration: Duration| libc::timeval {
        tv_sec: duration.as_secs() as _,
        tv_usec: duration.subsec_micros() as _,
    };
    let timer = libc::itimerval { it_value: timeval(first), it_interval: timeval(interval) };
    // SAFETY: the pointer is to a whole itimerval, and null says that the old
    // value isn't wanted. It cannot fail: the times are within range.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}

/// A thread of this process, as a signal for it alone names it.
#[derive(Debug, Clone, Copy)]
pub struct ThreadId(#[cfg(target_os = "linux")] Pid, #[cfg(not(target_os = "linux"))] Pthread);

#[cfg(target_os = "linux")]
impl ThreadId {
    /// The calling thread.
    pub fn current() -> ThreadId {
        ThreadId(nix::unistd::gettid())
    }

    /// Sends it this signal; without effect if it has ended.
    ///
    /// By tgkill(2), with which the sandbox lets a worker signal its own threads only. The
    /// pthread_kill of musl makes tkill(2), which names no process.
    pub fn interrupt(self, signal: Signal) {
        // SAFETY: it takes three numbers. The kernel refuses a thread of another process.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), self.0.as_raw(), signal as libc::c_int) };
    }
}

#[cfg(not(target_os = "linux"))]
impl ThreadId {
    /// The calling thread.
    pub fn current() -> ThreadId {
        ThreadId(nix::sys::pthread::pthread_self())
    }

    /// Sends it this signal; without effect if it has ended.
    pub fn interrupt(self, signal: Signal) {
        let _ = nix::sys::pthread::pthread_kill(self.0, signal);
    }
}
