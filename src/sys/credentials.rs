//! The user and the groups of a process.
//!
//! The parent looks the names up once, with [`find_user`] and [`find_group`]. Each worker
//! changes to them, with [`Credentials::take`], before it accepts a connection. The parent
//! keeps its own: it must signal and replace workers.

use std::ffi::CString;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};

use crate::sys::process;

/// A user, its group, and all groups that it is in.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// None: the process keeps its user.
    pub user: Option<Uid>,
    /// The primary group.
    pub group: Gid,
    groups: Vec<Gid>,
}

impl Credentials {
    /// The credentials of `user` with `group` as its primary group; without a user, only the
    /// group changes.
    ///
    /// # Errors
    /// If the groups of the user cannot be told.
    pub fn new(user: Option<&User>, group: Gid) -> nix::Result<Credentials> {
        let groups = match user {
            None => vec![group],
            Some(user) => {
                let name = CString::new(user.name.as_str()).map_err(|_| Errno::EINVAL)?;
                process::groups_of(&name, group)?
            }
        };
        Ok(Credentials { user: user.map(|user| user.uid), group, groups })
    }

    /// Gives up all other rights, for good. A worker calls it before it serves.
    ///
    /// # Errors
    /// `EPERM` if the process may not change its user.
    pub fn take(&self) -> nix::Result<()> {
        process::change_user(self.user, self.group, &self.groups)
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
