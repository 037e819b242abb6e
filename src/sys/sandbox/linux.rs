//! The sandbox as Linux has it: landlock since 5.13, whole since 6.12; seccomp
//! since 3.17.

use std::collections::BTreeMap;
use std::env::consts::ARCH;
use std::error::Error;
use std::{io, iter};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetError, RulesetStatus, Scope};
use nix::libc;
use nix::sys::prctl;
use seccompiler::SeccompCmpOp::{Eq, MaskedEq, Ne};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::{Condition, Rule};

pub(super) fn no_new_privs() -> io::Result<()> {
    Ok(prctl::set_no_new_privs()?)
}

/// The system's reason behind an error, or the text of the error.
fn system_error(error: &(dyn Error + 'static)) -> io::Error {
    let mut causes = iter::successors(Some(error), |&cause| cause.source());
    let number = causes.find_map(|cause| cause.downcast_ref::<io::Error>()?.raw_os_error());
    number.map_or_else(|| io::Error::other(error.to_string()), io::Error::from_raw_os_error)
}

/// Handles each right of the first version that has all that is needed, and grants none.
pub(super) fn landlock() -> io::Result<()> {
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
            Err(io::Error::other("this kernel is old, and has only a part of it"))
        }
        Ok(RulesetStatus::NotEnforced) => Err(io::Error::other("this kernel has none")),
        Err(error) => Err(system_error(&error)),
    }
}

pub(super) fn seccomp(allowed: &[Rule]) -> io::Result<()> {
    let filter = filter(allowed).map_err(|error| system_error(&error))?;
    seccompiler::apply_filter(&filter).map_err(|error| match error {
        seccompiler::Error::Seccomp(reason) => system_error(&reason),
        _ => system_error(&error),
    })
}

/// Allows a call if one of its rules holds; all other calls fail with EPERM.
fn filter(allowed: &[Rule]) -> Result<BpfProgram, BackendError> {
    let mut rules: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for rule in allowed {
        let alternatives = rules.entry(rule.call).or_default();
        if !rule.conditions.is_empty() {
            let conditions = rule.conditions.iter().map(condition).collect::<Result<_, _>>()?;
            alternatives.push(SeccompRule::new(conditions)?);
        }
    }
    // The C library calls the older ones where there are both.
    #[cfg(target_arch = "x86_64")]
    for (newer, older) in [(libc::SYS_ppoll, libc::SYS_poll), (libc::SYS_epoll_pwait, libc::SYS_epoll_wait)] {
        if rules.contains_key(&newer) {
            rules.insert(older, vec![]);
        }
    }
    let refuse = SeccompAction::Errno(libc::EPERM as u32);
    SeccompFilter::new(rules, refuse, SeccompAction::Allow, ARCH.try_into()?)?.try_into()
}

fn condition(condition: &Condition) -> Result<SeccompCondition, BackendError> {
    let (argument, operator, value) = match *condition {
        Condition::Is(argument, value) => (argument, Eq, value),
        Condition::IsNot(argument, value) => (argument, Ne, value),
        Condition::Has(argument, mask, bits) => (argument, MaskedEq(mask as u64), bits),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value as u64)
}
