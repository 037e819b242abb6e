//! fork, and what a forked child owes its parent.

use std::ffi::CStr;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SigSet, SigmaskHow};
use nix::unistd::{self, ForkResult, Gid, Pid, Uid};

/// The exit code of a child that panicked, as Rust's own main uses it.
const PANICKED: u8 = 101;

/// Forks a child that runs `work` and leaves with the exit code it returns.
/// The parent gets the child's pid.
///
/// All signals are blocked around the fork, and the child starts with all of
/// them blocked: a signal that comes early waits until the child has handlers
/// of its own. The child never returns from here, not even by a panic, and
/// leaves by `_exit`: nothing that belongs to the parent (buffers, `Drop`,
/// atexit) runs a second time. See fork(2), _exit(2).
///
/// # Errors
/// `EAGAIN` (a limit on processes) or `ENOMEM`; then there is no child.
///
/// # Panics
/// If the process has more than one thread: the others would be gone in the
/// child, with whatever locks they held.
pub fn fork(work: impl FnOnce() -> u8) -> nix::Result<Pid> {
    assert_ne!(num_threads::is_single_threaded(), Some(false), "fork wants a single thread");
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    // SAFETY: the process has one thread (asserted above), so the child's copy
    // of it is whole, and any function may be called there.
    let forked = unsafe { unistd::fork() };
    if let Ok(ForkResult::Child) = forked {
        let code = catch_unwind(AssertUnwindSafe(work)).unwrap_or(PANICKED);
        // SAFETY: _exit may be called at any time; it does not return.
        unsafe { libc::_exit(code.into()) }
    }
    before.thread_set_mask()?;
    match forked? {
        ForkResult::Parent { child } => Ok(child),
        ForkResult::Child => unreachable!("the child has left by _exit"),
    }
}

/// Arranges that this process is interrupted when `parent` dies.
///
/// Linux sends SIGCONT then: of all signals the one that reaches a stopped
/// process too, and harmless from anybody else. The setting is lost with a
/// change of user: call this after [`change_user`]. macOS has nothing alike;
/// there the bell's slow tick makes a worker look (see
/// [`signal`](super::signal)). In both, [`is_orphan`] tells what happened, also
/// when the parent died before this call. See prctl(2), PR_SET_PDEATHSIG.
///
/// # Errors
/// None that a correct call can cause.
pub fn watch_parent() -> nix::Result<()> {
    #[cfg(target_os = "linux")]
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGCONT)?;
    Ok(())
}

/// Has `parent`, whose child this process was at first, died?
pub fn is_orphan(parent: Pid) -> bool {
    unistd::getppid() != parent
}

/// Names this process for ps, pstree and ss: at most 15 bytes, the rest is cut.
/// Only Linux can (PR_SET_NAME); elsewhere nothing happens.
pub fn set_name(name: &str) {
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        // A name is a help to the reader of ps: without it all works as well.
        let _ = nix::sys::prctl::set_name(&name);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = name;
}

/// Gives up this process's rights for those of another user, for good: the
/// supplementary groups first, then the group, the user last, because each
/// step needs the rights that the next one takes away. See initgroups(3),
/// setgid(2), setuid(2).
///
/// # Errors
/// `EPERM` where the process may not change its user.
pub fn change_user(user: Option<(&CStr, Uid)>, group: Gid) -> nix::Result<()> {
    match user {
        Some((name, _)) => {
            // SAFETY: `name` is a C string that outlives the call. The group's
            // type differs, gid_t here and int on macOS; its bits don't.
            Errno::result(unsafe { libc::initgroups(name.as_ptr(), group.as_raw() as _) })?;
        }
        None => {
            let groups = [group.as_raw()];
            // SAFETY: the pointer is to one group, and the length says one.
            Errno::result(unsafe { libc::setgroups(1, groups.as_ptr()) })?;
        }
    }
    unistd::setgid(group)?;
    user.map_or(Ok(()), |(_, uid)| unistd::setuid(uid))
}
