//! The user and the groups of a process.
//!
//! The parent looks the names up once, with [`find_user`] and [`find_group`]. Each worker
//! changes to them, with [`Credentials::take`], before it accepts a connection. The parent
//! keeps its own: it must signal and replace workers.
#![allow(unsafe_code)]

use std::ffi::CString;

use nix::errno::Errno;
use nix::libc;
use nix::unistd::{self, Gid, Group, Uid, User, getegid, geteuid};

/// How many groups a process can have: NGROUPS_MAX.
const MAX_GROUPS: usize = if cfg!(target_os = "macos") { 16 } else { 65_536 };

/// A user, its group, and all groups that it is in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// None: the process keeps its user.
    pub user: Option<Uid>,
    /// The primary group.
    pub group: Gid,
    groups: Vec<libc::gid_t>,
}

impl Credentials {
    /// The credentials of `user` with `group` as its primary group; without a user, only the
    /// group changes. The system's database lists a user's groups: see getgrouplist(3).
    ///
    /// # Errors
    /// `EINVAL` if there are more groups than any system permits.
    pub fn new(user: Option<&User>, group: Gid) -> nix::Result<Credentials> {
        let mut groups = vec![group.as_raw()];
        if let Some(user) = user {
            let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
            groups.resize(65_536, 0); // NGROUPS_MAX of Linux.
            let mut number = groups.len() as libc::c_int;
            // On macOS a group is an int here: the same bits.
            let (primary, list) = (group.as_raw() as _, groups.as_mut_ptr().cast());
            // SAFETY: the name is a C string, and the list is as long as `number` says.
            let result = unsafe { libc::getgrouplist(name.as_ptr(), primary, list, &mut number) };
            if result < 0 {
                return Err(Errno::EINVAL);
            }
            groups.truncate(MAX_GROUPS.min(number as usize));
        }
        Ok(Credentials { user: user.map(|user| user.uid), group, groups })
    }

    /// Gives up this process's rights for these, for good: the groups first, the user last,
    /// because each step needs the rights that the last step takes away. A worker calls it
    /// before it serves. See setgroups(2), setgid(2), setuid(2).
    ///
    /// # Errors
    /// `EPERM` if the process may not change its user.
    pub fn take(&self) -> nix::Result<()> {
        // SAFETY: the pointer is to as many groups as the length says.
        Errno::result(unsafe { libc::setgroups(self.groups.len() as _, self.groups.as_ptr()) })?;
        unistd::setgid(self.group)?;
        self.user.map_or(Ok(()), unistd::setuid)
    }
}

/// Does this process have that user and group already?
pub fn are_current(user: Option<&User>, group: Gid) -> bool {
    group == getegid() && user.is_none_or(|user| user.uid == geteuid())
}

/// Finds a user by its name or its number. None: there is no such user.
///
/// # Errors
/// If the system's database of users cannot be read.
pub fn find_user(name: &str) -> nix::Result<Option<User>> {
    find(name, User::from_name, |number| User::from_uid(Uid::from_raw(number)))
}

/// Finds a group by its name or its number. None: there is no such group.
///
/// # Errors
/// If the system's database of groups cannot be read.
pub fn find_group(name: &str) -> nix::Result<Option<Group>> {
    find(name, Group::from_name, |number| Group::from_gid(Gid::from_raw(number)))
}

fn find<T>(
    name: &str,
    by_name: impl Fn(&str) -> nix::Result<Option<T>>,
    by_number: impl Fn(u32) -> nix::Result<Option<T>>,
) -> nix::Result<Option<T>> {
    let found = match by_name(name) {
        Ok(None) => name.parse().map_or(Ok(None), by_number),
        found => found,
    };
    match found {
        // Some systems report a missing entry as an error.
        Err(Errno::ENOENT | Errno::ESRCH) => Ok(None),
        found => found,
    }
}
