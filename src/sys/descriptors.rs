//! This process's descriptors: how many it may have, which stay open, and which a program that it
//! executes gets.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd;

/// From now on the descriptor `fd` of this process, which is open, is for `file`. See dup2(2).
///
/// # Errors
/// `EMFILE`, and none else for a number that is in use.
pub fn replace_descriptor(fd: RawFd, file: File) -> io::Result<()> {
    // SAFETY: dup2 closes what `fd` was for, and its owner goes on with `file`: a descriptor that is
    // only written to.
    Errno::result(unsafe { libc::dup2(file.as_raw_fd(), fd) })?;
    // SAFETY: it changes a flag of this descriptor alone: dup2 has cleared it.
    Errno::result(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    Ok(())
}

/// Before exec: the first descriptor of each pair becomes the second, and stays open in the program
/// that is executed. What was open under the second numbers is closed.
///
/// # Errors
/// `EMFILE`: no descriptors are left.
pub fn pass_descriptors<const N: usize>(pairs: [(RawFd, RawFd); N]) -> io::Result<()> {
    // Out of the way first: one of them may have the number that another is to get.
    let free = pairs.iter().map(|(_, to)| to + 1).max().unwrap_or(0);
    let mut copies = [0; N];
    for (copy, (from, _)) in copies.iter_mut().zip(pairs) {
        // SAFETY: it makes a new descriptor, and changes none that is open.
        *copy = Errno::result(unsafe { libc::fcntl(from, libc::F_DUPFD_CLOEXEC, free) })?;
    }
    for (copy, (_, to)) in copies.into_iter().zip(pairs) {
        // SAFETY: what was open as `to` is closed under its owner, which does not run any more: this
        // process executes another program, or ends.
        Errno::result(unsafe { libc::dup2(copy, to) })?;
    }
    Ok(())
}

/// Raises this process's limit on open descriptors to `wanted`, or as far as it may: the
/// soft limit is mostly 1,024, or 256 on macOS. Returns the limit from now on. If that is too
/// few, the call that needs another descriptor fails. See getrlimit(2), RLIMIT_NOFILE.
pub fn allow_descriptors(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let raised = wanted.min(hard);
    match setrlimit(Resource::RLIMIT_NOFILE, raised.max(soft), hard) {
        Ok(()) => raised.max(soft),
        Err(_) => soft,
    }
}

/// Descriptors that a process opens at its start, and some to spare.
pub const OF_A_START: usize = 24;

/// Makes the kernel's table of this process's descriptors large enough for `wanted` of them.
/// Call it while there is one thread: with several, Linux waits for some 10 ms each time that
/// the table grows (at 64, 256, … descriptors), and all threads that need a descriptor wait.
/// If the limit on descriptors is lower, nothing changes.
pub fn reserve_descriptors(wanted: usize) {
    let lowest = RawFd::try_from(wanted).unwrap_or(RawFd::MAX);
    if let Ok(highest) = fcntl(io::stdin(), FcntlArg::F_DUPFD_CLOEXEC(lowest)) {
        let _ = unistd::close(highest);
    }
}

/// How many descriptors this process may open besides those of its start, at least 1. A worker
/// that took more connections than it has descriptors for would be woken for connections that
/// another one could accept.
pub fn descriptors_left() -> usize {
    let soft = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    usize::try_from(soft).unwrap_or(usize::MAX).saturating_sub(OF_A_START).max(1)
}

/// Closes all descriptors of this process but `kept`. A forked child calls it before it
/// serves, for those that the program was started with, and that have no owner here. What
/// the parent owned is dropped before, or never used nor dropped again. See close_range(2).
///
/// # Errors
/// If the system has neither such a call nor a list of the open descriptors.
pub fn close_all_but(kept: &[RawFd]) -> io::Result<()> {
    let mut edges = [kept, &[-1, RawFd::MAX]].concat();
    edges.sort_unstable();
    let gaps = edges.windows(2).map(|edge| (edge[0] + 1, edge[1] - 1));
    if gaps.filter(|(first, last)| first <= last).all(|(first, last)| close_range(first, last).is_ok()) {
        return Ok(());
    }
    // One by one, as the system lists them.
    let list = if cfg!(target_os = "linux") { "/proc/self/fd" } else { "/dev/fd" };
    let open: Vec<RawFd> =
        fs::read_dir(list)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| !kept.contains(fd)) {
        let _ = unistd::close(fd); // The list's own descriptor is closed already.
    }
    Ok(())
}

/// Linux 5.9 and later.
#[cfg(target_os = "linux")]
fn close_range(first: RawFd, last: RawFd) -> nix::Result<()> {
    let (first, last, flags) = (first as libc::c_uint, last as libc::c_uint, 0 as libc::c_uint);
    // SAFETY: it touches no memory; that no owner uses these descriptors again is what
    // `close_all_but` requires of its caller.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

#[cfg(not(target_os = "linux"))]
fn close_range(_: RawFd, _: RawFd) -> nix::Result<()> {
    Err(Errno::ENOSYS)
}
