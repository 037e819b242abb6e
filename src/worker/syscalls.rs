//! The system calls that the sandbox allows a worker: those of its own loop, and no other.
//! (Of files, ports and signals its other layer, Landlock, allows nothing at all: see
//! `sys/sandbox/linux.rs`.)
//!
//! A call that is missing here fails with EPERM. Some calls are allowed with certain
//! arguments alone, so that what other processes share (the listening socket, the log)
//! stays as it is. To allow another call, add it to the group that needs it. See
//! [`sys::sandbox`](crate::sys::sandbox) for how the list is enforced.

use std::os::fd::RawFd;
use std::process;

use nix::libc::{self, c_int};

use crate::config::Model;
use crate::sys::sandbox::Condition::{Has, Is, IsNot};
use crate::sys::sandbox::{Condition, Rule, Syscall, linux_constants};

/// Calls that are allowed with all arguments. The kernel decides on them by their number
/// alone, so they cost nothing.
const ALLOWED: &[Syscall] = &linux_constants! {
    // Connections: accept, recv, close, and what the log says of them.
    SYS_accept, SYS_recvfrom, SYS_close, SYS_getsockname, SYS_getpeername, SYS_getsockopt,
    // Waiting for several connections, and for room in the log.
    SYS_ppoll, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_restart_syscall,
    // Signals, and the wakeup timer.
    SYS_rt_sigaction, SYS_rt_sigprocmask, SYS_rt_sigreturn, SYS_setitimer,
    // Deadlines, and the look whether the parent lives.
    SYS_clock_gettime, SYS_getpid, SYS_getppid, SYS_gettid,
    // The log, and its lock.
    SYS_write, SYS_sched_yield, SYS_futex,
    // Memory, and the seed of Rust's hash maps.
    SYS_brk, SYS_mremap, SYS_munmap, SYS_getrandom,
    // The end.
    SYS_exit, SYS_exit_group,
};

/// All that a worker may call. Other processes share its descriptors `shared`: the worker has
/// each of them under one number, and can make no other number for it.
pub fn allowed(shared: &[RawFd], model: Model) -> Vec<Rule> {
    let [sendto, shutdown, setsockopt, fcntl, ioctl] =
        linux_constants! { SYS_sendto, SYS_shutdown, SYS_setsockopt, SYS_fcntl, SYS_ioctl };
    let [mmap, madvise, tgkill, tkill] = linux_constants! { SYS_mmap, SYS_madvise, SYS_tgkill, SYS_tkill };
    let [fast_open] = linux_constants! { MSG_FASTOPEN };
    let this_process = process::id() as c_int;
    let on_own_descriptor = |conditions: &[Condition]| on_own_descriptor(shared, conditions);
    let mut rules: Vec<Rule> = ALLOWED.iter().map(|call| Rule::new(*call, [])).collect();
    rules.extend([
        // Not with MSG_FASTOPEN, which would connect to any address.
        Rule::new(sendto, [Has(3, fast_open as c_int, 0)]),
        // Not SHUT_RD: of a listening socket that ends the listening, for all processes.
        Rule::new(shutdown, [Is(1, libc::SHUT_WR)]),
        // The time-out of recv.
        Rule::new(setsockopt, on_own_descriptor(&[Is(1, libc::SOL_SOCKET), Is(2, libc::SO_RCVTIMEO)])),
        // O_NONBLOCK.
        Rule::new(fcntl, [Is(1, libc::F_GETFL)]),
        Rule::new(fcntl, [Is(1, libc::F_GETFD)]),
        Rule::new(fcntl, on_own_descriptor(&[Is(1, libc::F_SETFL)])),
        // The length of the send queue. Not TIOCSTI, which types on a terminal.
        Rule::new(ioctl, [Is(1, libc::TIOCOUTQ as c_int)]),
        // Memory, but of no file, and none that could hold new code.
        Rule::new(mmap, [Has(2, libc::PROT_EXEC, 0), Has(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS)]),
        // As an allocator gives memory back. Not MADV_HWPOISON and its like, which spoil the
        // page for all processes that map it.
        Rule::new(madvise, [Is(2, libc::MADV_DONTNEED)]),
        Rule::new(madvise, [Is(2, libc::MADV_FREE)]),
        // raise and abort.
        Rule::new(tgkill, [Is(0, this_process)]),
        Rule::new(tkill, [Is(0, this_process)]),
    ]);
    if model != Model::Multiplex {
        rules.extend(bulk(shared));
    }
    if model == Model::Thread {
        let [mprotect, sigaltstack] = linux_constants! { SYS_mprotect, SYS_sigaltstack };
        // An allocator grows the memory of a thread so; without new code, as above.
        rules.push(Rule::new(mprotect, [Has(2, libc::PROT_EXEC, 0)]));
        // The end of a thread.
        rules.push(Rule::new(sigaltstack, []));
    }
    rules
}

/// Bulk: from a socket to a pipe, and back, or from the pipe into memory. Not from or to what other
/// processes share.
fn bulk(shared: &[RawFd]) -> [Rule; 4] {
    let [pipe, splice, read, fcntl] = linux_constants! { SYS_pipe2, SYS_splice, SYS_read, SYS_fcntl };
    let [pipe_size] = linux_constants! { F_SETPIPE_SZ };
    [
        Rule::new(pipe, []),
        Rule::new(fcntl, on_own_descriptor(shared, &[Is(1, pipe_size as c_int)])),
        Rule::new(splice, shared.iter().flat_map(|fd| [IsNot(0, *fd), IsNot(2, *fd)])),
        Rule::new(read, on_own_descriptor(shared, &[])),
    ]
}

/// The first argument is none of the descriptors that other processes share.
fn on_own_descriptor(shared: &[RawFd], conditions: &[Condition]) -> Vec<Condition> {
    [conditions, &shared.iter().map(|fd| IsNot(0, *fd)).collect::<Vec<_>>()].concat()
}
