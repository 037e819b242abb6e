//! The rights that workers keep: `--user` and `--group`.
//!
//! The parent binds the port and opens the files first, and looks the names up
//! once; each worker then gives its rights up before it talks to anybody. The
//! parent keeps its own: it must bind no more, but signal and replace workers.

use std::ffi::CString;
use std::io;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};

use crate::error::Error;
use crate::explain;
use crate::sys::process;

/// Whose rights the workers take.
#[derive(Debug, Clone)]
pub struct Credentials {
    user: Option<Uid>,
    group: Gid,
    groups: Vec<Gid>,
}

impl Credentials {
    /// Looks up a user and a group, each by name or number. None: nothing asked.
    ///
    /// # Errors
    /// If there is no such user or group, or this process may not change to it.
    pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, Error> {
        let user = user
            .map(|name| {
                let by_number = |number| User::from_uid(Uid::from_raw(number));
                resolve("user", name, User::from_name, by_number)
            })
            .transpose()?;
        let group = group
            .map(|name| {
                let by_number = |number| Group::from_gid(Gid::from_raw(number));
                resolve("group", name, Group::from_name, by_number)
            })
            .transpose()?;
        let Some(gid) = group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid)) else {
            return Ok(None);
        };

        let already = gid == getegid() && user.as_ref().is_none_or(|user| user.uid == geteuid());
        if !geteuid().is_root() {
            // Changing to oneself would need root too, for the other groups.
            return if already {
                Ok(None)
            } else {
                Err(Error::new(
                    "change the workers' user or group",
                    &Errno::EPERM.into(),
                    "start as root, or leave out --user and --group",
                ))
            };
        }
        if user.as_ref().is_some_and(|user| !user.uid.is_root()) && !process::may_signal_others() {
            return Err(Error::new(
                "signal workers of another user, and so not end them",
                &Errno::EPERM.into(),
                "start with the capability CAP_KILL (docker run --cap-add KILL), or as that user",
            ));
        }
        let groups = match &user {
            None => vec![gid],
            Some(user) => {
                let failed = |error: io::Error| {
                    Error::new(
                        format_args!("find the groups of {}", user.name),
                        &error,
                        "give --user another",
                    )
                };
                let name = CString::new(user.name.as_str()).map_err(|error| failed(error.into()))?;
                process::groups_of(&name, gid).map_err(|error| failed(error.into()))?
            }
        };
        Ok(Some(Credentials { user: user.map(|user| user.uid), group: gid, groups }))
    }

    /// Gives up all other rights, for good. For a worker, before it serves.
    ///
    /// # Errors
    /// `EPERM` where the process may not change its user after all.
    pub fn take(&self) -> nix::Result<()> {
        process::change_user(self.user, self.group, &self.groups)?;
        explain!("setgroups(), setgid({}) = 0: the rights of other groups are gone", self.group);
        if let Some(user) = self.user {
            explain!("setuid({user}) = 0: so are those of other users, root's among them, and all for good");
        }
        Ok(())
    }
}

fn resolve<T>(
    kind: &str,
    name: &str,
    by_name: impl Fn(&str) -> nix::Result<Option<T>>,
    by_number: impl Fn(u32) -> nix::Result<Option<T>>,
) -> Result<T, Error> {
    let found = match by_name(name) {
        Ok(None) => name.parse().map_or(Ok(None), by_number),
        found => found,
    };
    match found {
        Ok(Some(found)) => Ok(found),
        // Some systems say "no such entry" by an error.
        Ok(None) | Err(Errno::ENOENT | Errno::ESRCH) => {
            Err(Error::plain(format!("there is no {kind} {name}; give --{kind} one that this system knows")))
        }
        Err(error) => Err(Error::new(
            format_args!("look up the {kind} {name}"),
            &error.into(),
            format_args!("try again, or give --{kind} its number"),
        )),
    }
}
