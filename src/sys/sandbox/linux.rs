//! The sandbox as Linux has it: landlock since 5.13, whole since 6.12; seccomp
//! since 3.17.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::error::Error;
use std::os::fd::RawFd;
use std::{io, process};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use nix::errno::Errno;
use nix::libc::{self, c_int, c_long};
use nix::sys::prctl;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::LayerError;

/// What a worker's life takes: accept, recv and their like; its signals and the bell; the
/// clock; the log; memory; the end. Those of [`filter`] are added, with certain arguments.
const CALLS: &[c_long] = &[
    libc::SYS_accept,
    libc::SYS_recvfrom,
    libc::SYS_close,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
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
    libc::SYS_exit,
    libc::SYS_exit_group,
];

pub(super) fn no_new_privs() -> Result<(), LayerError> {
    prctl::set_no_new_privs().map_err(|error| refusal(&io::Error::from(error)))
}

/// Looks for the system's reason behind an error.
fn refusal(error: &(dyn Error + 'static)) -> LayerError {
    let mut reason = Some(error);
    while let Some(cause) = reason {
        if let Some(number) = cause.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            let errno = Errno::from_raw(number);
            let why = errno.desc().to_lowercase();
            return match errno {
                Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => LayerError::Transient(why),
                _ => LayerError::Unsupported(why),
            };
        }
        reason = cause.source();
    }
    LayerError::Unsupported(error.to_string())
}

/// Handles each right of the first version that has all we ask for, and grants none.
pub(super) fn landlock() -> Result<(), LayerError> {
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
            Err(LayerError::Unsupported("this kernel is old, and has only a part of it".into()))
        }
        Ok(RulesetStatus::NotEnforced) => Err(LayerError::Unsupported("this kernel has none".into())),
        Err(error) => Err(refusal(&error)),
    }
}

pub(super) fn seccomp(shared: &[RawFd]) -> Result<(), LayerError> {
    let filter = filter(shared).map_err(|error| refusal(&error))?;
    seccompiler::apply_filter(&filter).map_err(|error| match error {
        seccompiler::Error::Seccomp(reason) => refusal(&reason),
        _ => refusal(&error),
    })
}

/// [`CALLS`], and some with certain arguments alone: what other processes share, by the
/// descriptors `shared`, stays as it is. What is looked at by its number alone costs nothing:
/// the kernel knows the answer beforehand.
fn filter(shared: &[RawFd]) -> Result<BpfProgram, seccompiler::BackendError> {
    let compare = |argument, operator, value: u64| {
        SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value)
    };
    let is = |argument, value: c_int| compare(argument, SeccompCmpOp::Eq, value as u64);
    let has = |argument, mask: c_int, bits: c_int| {
        compare(argument, SeccompCmpOp::MaskedEq(mask as u64), bits as u64)
    };
    let all = SeccompRule::new;
    // By number: a worker has each of them once, and can make no other number for it.
    let on_its_own = |mut conditions: Vec<SeccompCondition>| {
        for fd in shared {
            conditions.push(compare(0, SeccompCmpOp::Ne, *fd as u64)?);
        }
        all(conditions)
    };
    let self_alone = || all(vec![is(0, process::id() as c_int)?]);
    let mut rules: BTreeMap<c_long, Vec<SeccompRule>> = CALLS.iter().map(|call| (*call, vec![])).collect();
    rules.extend([
        // No connection to anywhere by the first bytes that are sent.
        (libc::SYS_sendto, vec![all(vec![has(3, libc::MSG_FASTOPEN, 0)?])?]),
        // The other direction of a listening socket is the listening, for all processes.
        (libc::SYS_shutdown, vec![all(vec![is(1, libc::SHUT_WR)?])?]),
        (libc::SYS_setsockopt, vec![on_its_own(vec![is(1, libc::SOL_SOCKET)?, is(2, libc::SO_RCVTIMEO)?])?]),
        (
            libc::SYS_fcntl,
            vec![
                all(vec![is(1, libc::F_GETFL)?])?,
                all(vec![is(1, libc::F_GETFD)?])?,
                on_its_own(vec![is(1, libc::F_SETFL)?])?,
            ],
        ),
        // How much a client has not taken yet; not what types on a terminal.
        (libc::SYS_ioctl, vec![all(vec![is(1, libc::TIOCOUTQ as c_int)?])?]),
        // Memory, but of no file, and none that could hold new code.
        (
            libc::SYS_mmap,
            vec![all(vec![has(2, libc::PROT_EXEC, 0)?, has(3, libc::MAP_ANONYMOUS, libc::MAP_ANONYMOUS)?])?],
        ),
        // As an allocator gives memory back; not what spoils the page for all that map it.
        (
            libc::SYS_madvise,
            vec![all(vec![is(2, libc::MADV_DONTNEED)?])?, all(vec![is(2, libc::MADV_FREE)?])?],
        ),
        // raise and abort.
        (libc::SYS_tgkill, vec![self_alone()?]),
        (libc::SYS_tkill, vec![self_alone()?]),
    ]);
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}
