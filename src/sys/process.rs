//! Processes: fork and waitpid, the death of the parent, what the system tells of a process.
#![allow(unsafe_code)]

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::unistd::{self, ForkResult, Pid};

/// The exit code of a child that panicked, as Rust's own main uses it.
pub const PANICKED: u8 = 101;

/// Forks a child that runs `work` and leaves with the exit code it returns.
/// The parent gets the child's pid.
///
/// All signals are blocked around the fork, and the child starts with all of
/// them blocked: an early signal waits until the child has handlers of its own.
/// The child never returns from here, not even by a panic, and leaves by `_exit`:
/// the parent's buffers and atexit functions do not run a second time. See
/// fork(2), _exit(2).
///
/// # Errors
/// `EAGAIN` (a limit on processes) or `ENOMEM`; then there is no child.
///
/// # Panics
/// If the process has more than one thread: in the child the others would be gone,
/// and the locks that they held would stay locked.
pub fn fork(work: impl FnOnce() -> u8) -> nix::Result<Pid> {
    assert_ne!(num_threads::is_single_threaded(), Some(false), "fork wants a single thread");
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the process has one thread (asserted above), so the child's copy
    // of it is whole, and any function may be called there.
    let forked = unsafe { unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
        exit(code)
    }
    before.thread_set_mask()?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("the child has left by _exit"),
    }
}

/// Ends this process at once, with all of its threads. What the program registered for its
/// end does not run. See _exit(2).
pub fn exit(code: u8) -> ! {
    // SAFETY: _exit may be called at any time; it does not return.
    unsafe { libc::_exit(code.into()) }
}

/// How a child died.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitStatus {
    /// It left with this exit code.
    Exit(i32),
    /// A signal of this number killed it.
    Signal(i32),
}

impl fmt::Display for WaitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            WaitStatus::Exit(code) => write!(f, "left with exit code {code}"),
            WaitStatus::Signal(number) => match Signal::try_from(number) {
                Ok(signal) => write!(f, "killed by {signal}"),
                Err(_) => write!(f, "killed by signal {number}"),
            },
        }
    }
}

/// What has happened to a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildEvent {
    /// It has died, and is reaped now.
    Died(WaitStatus),
    /// A signal has stopped it.
    Stopped,
    /// It goes on.
    Continued,
}

/// What has happened to one child, if anything has: a child that has died is reaped. Never
/// blocks. See waitpid(2).
///
/// nix's waitpid is not used: it knows no real-time signals, and for a child that was
/// killed by one it returns an error after the kernel has reaped it.
pub fn wait_child() -> Option<(Pid, ChildEvent)> {
    let mut status = 0;
    let options = libc::WNOHANG | libc::WUNTRACED | libc::WCONTINUED;
    // SAFETY: the pointer is to an int, which is all that waitpid writes to.
    let pid = unsafe { libc::waitpid(-1, &mut status, options) };
    let event = match status {
        _ if libc::WIFSTOPPED(status) => ChildEvent::Stopped,
        _ if libc::WIFCONTINUED(status) => ChildEvent::Continued,
        _ if libc::WIFSIGNALED(status) => ChildEvent::Died(WaitStatus::Signal(libc::WTERMSIG(status))),
        _ => ChildEvent::Died(WaitStatus::Exit(libc::WEXITSTATUS(status))),
    };
    // 0: nothing has happened; an error: there are no children.
    (pid > 0).then(|| (Pid::from_raw(pid), event))
}

/// Arranges that this process is interrupted when its parent dies.
///
/// Linux then sends SIGCONT, which reaches a stopped process too, and is harmless if
/// another process sends it. A change of user clears the setting: call this after
/// [`Credentials::take`](super::credentials::Credentials::take). macOS has no such setting:
/// there a process has to look now and then. On both, [`is_orphan`] tells whether the parent is dead,
/// also if it died before this call. See prctl(2), PR_SET_PDEATHSIG.
///
/// # Errors
/// None that a correct call can cause.
pub fn set_pdeathsig() -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(Signal::SIGCONT)?;
    Ok(())
}

/// Has `parent`, which forked this process, died?
pub fn is_orphan(parent: Pid) -> bool {
    unistd::getppid() != parent
}

/// What the system tells any user about a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessInfo {
    /// The process that forked it, or has inherited it.
    pub parent: Pid,
    /// Whether it runs.
    pub condition: ProcessState,
}

/// Whether a process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessState {
    /// It runs, or sleeps until an event.
    Alive,
    /// It is stopped, by SIGSTOP or by its terminal.
    Stopped,
    /// It is dead, and its parent has not reaped it: a zombie.
    Dead,
}

/// Tells the state of a process. None: there is no such process. See proc(5),
/// /proc/PID/stat.
#[cfg(target_os = "linux")]
pub fn inspect(pid: Pid) -> Option<ProcessInfo> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may contain anything.
    let mut words = stat.rsplit_once(") ")?.1.split(' ');
    let condition = match words.next()? {
        "T" => ProcessState::Stopped,
        "Z" | "X" => ProcessState::Dead,
        _ => ProcessState::Alive,
    };
    Some(ProcessInfo { parent: Pid::from_raw(words.next()?.parse().ok()?), condition })
}

/// Tells the state of a process. None: there is no such process. See libproc.h.
#[cfg(not(target_os = "linux"))]
pub fn inspect(pid: Pid) -> Option<ProcessInfo> {
    let mut info = std::mem::MaybeUninit::<libc::proc_bsdinfo>::uninit();
    let size = size_of::<libc::proc_bsdinfo>() as libc::c_int;
    // SAFETY: there is room for as many bytes as the size says.
    let written = unsafe {
        libc::proc_pidinfo(pid.as_raw(), libc::PROC_PIDTBSDINFO, 0, info.as_mut_ptr().cast(), size)
    };
    // SAFETY: it is whole, then; and numbers alone are in it.
    let info = (written == size).then(|| unsafe { info.assume_init() })?;
    let condition = match info.pbi_status {
        libc::SSTOP => ProcessState::Stopped,
        libc::SZOMB => ProcessState::Dead,
        _ => ProcessState::Alive,
    };
    Some(ProcessInfo { parent: Pid::from_raw(info.pbi_ppid as libc::pid_t), condition })
}

/// May this process, which is root's, signal those of other users? On Linux a container
/// can take that right away (capabilities(7), CAP_KILL).
pub fn may_signal_others() -> bool {
    const CAP_KILL: u32 = 5;
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let capabilities = capabilities.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
    capabilities.is_none_or(|bits| bits & 1 << CAP_KILL != 0)
}

/// Names this process for ps, pstree and ss: at most 15 bytes, the rest is cut. Only Linux
/// has such a name (PR_SET_NAME); elsewhere this does nothing.
pub fn set_name(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        // The name only helps readers of ps, so a failure is ignored.
        let _ = nix::sys::prctl::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}
