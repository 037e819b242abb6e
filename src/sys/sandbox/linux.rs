//! The sandbox as Linux has it: landlock since 5.13, whole since 6.12; seccomp
//! since 3.17.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::error::Error;
use std::{io, process};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use nix::errno::Errno;
use nix::libc::{self, c_long};
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::Refusal;

/// What a worker's life takes: accept, recv, send and their like; its signals and
/// the bell; the clock; the log; memory; the end.
const CALLS: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_shutdown,
    libc::SYS_close,
    libc::SYS_listen,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    libc::SYS_ppoll,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_setitimer,
    libc::SYS_clock_gettime,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_write,
    libc::SYS_sched_yield,
    libc::SYS_futex,
    libc::SYS_getrandom,
    libc::SYS_brk,
    libc::SYS_mremap,
    libc::SYS_munmap,
    libc::SYS_madvise,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

pub(super) fn no_new_privs() -> Result<(), Refusal> {
    prctl::set_no_new_privs().map_err(|error| refusal(&io::Error::from(error)))
}

/// Looks for the system's reason behind an error.
fn refusal(error: &(dyn Error + 'static)) -> Refusal {
    let mut reason = Some(error);
    while let Some(cause) = reason {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            let errno = Errno::from_raw(number);
            let why = errno.desc().to_lowercase();
            return match errno {
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => Refusal::NotNow(why),
                _ => Refusal::Lacking(why),
            };
        }
        reason = cause.source();
    }
    Refusal::Lacking(error.to_string())
}

/// Handles each right of the first version that has all we ask for, and grants none.
pub(super) fn landlock() -> Result<(), Refusal> {
    // Linux 6.12. Newer ones know more rights, for what seccomp refuses anyway.
    const COMPLETE: ABI = ABI::V6;
    let restrict = || -> Result<RulesetStatus, RulesetError> {
        let ruleset = Ruleset::default()
            .handle_access(AccessFs::from_all(COMPLETE))?
            .handle_access(AccessNet::from_all(COMPLETE))?
            .scope(Scope::from_all(COMPLETE))?;
        Ok(ruleset.create()?.restrict_self()?.ruleset)
    };
    match restrict() {
        Ok(RulesetStatus::FullyEnforced) => Ok(()),
        Ok(RulesetStatus::PartiallyEnforced) => {
            Err(Refusal::Lacking("this kernel is old, and has only a part of it".into()))
        }
        Ok(RulesetStatus::NotEnforced) => Err(Refusal::Lacking("this kernel has none".into())),
        Err(error) => Err(refusal(&error)),
    }
}

pub(super) fn seccomp() -> Result<(), Refusal> {
    let filter = filter().map_err(|error| refusal(&error))?;
    seccompiler::apply_filter(&filter).map_err(|error| match error {
        seccompiler::Error::Seccomp(reason) => refusal(&reason),
        _ => refusal(&error),
    })
}

/// [`CALLS`], and some with certain arguments alone. What is looked at by its
/// number alone costs nothing: the kernel knows the answer beforehand.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let when = |argument, operator, value: u64| {
        let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)?;
        SeccompRule::new(vec![condition])
    };
    let is = |argument, value| when(argument, SeccompCmpOp::Eq, value);
    let fcntl = |command: libc::c_int| is(1, command as u64);
    let self_alone = || is(0, process::id().into());
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, vec![])).collect();
    rules.extend([
        // Memory, but none that could hold new code.
        (libc::SYS_mmap, vec![when(2, SeccompCmpOp::MaskedEq(libc::PROT_EXEC as u64), 0)?]),
        // How much a client has not taken yet; not what types on a terminal.
        (libc::SYS_ioctl, vec![is(1, libc::TIOCOUTQ)?]),
        (libc::SYS_fcntl, vec![fcntl(libc::F_GETFL)?, fcntl(libc::F_SETFL)?, fcntl(libc::F_GETFD)?]),
        // raise and abort.
        (libc::SYS_tgkill, vec![self_alone()?]),
        (libc::SYS_tkill, vec![self_alone()?]),
    ]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}
