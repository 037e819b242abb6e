//! `--user` and `--group`: the credentials that the workers take. The parent looks them up
//! once, before it forks, so that a mistake ends the program at its start.

use nix::errno::Errno;
use nix::unistd::geteuid;

use crate::error::Error;
use crate::sys::credentials::{Credentials, are_current, find_group, find_user};
use crate::sys::process::may_signal_others;

/// Looks up a user and a group, each by name or number. None: the workers keep the parent's.
///
/// # Errors
/// If there is no such user or group, or this process may not change to it.
pub fn find(user: Option<&str>, group: Option<&str>) -> Result<Option<Credentials>, Error> {
    let user = user.map(|name| known("user", name, find_user(name))).transpose()?;
    let group = group.map(|name| known("group", name, find_group(name))).transpose()?;
    let Some(gid) = group.map(|group| group.gid).or(user.as_ref().map(|user| user.gid)) else {
        return Ok(None);
    };
    if !geteuid().is_root() {
        // Even a change to the current user needs root, because of its other groups.
        return match are_current(user.as_ref(), gid) {
            true => Ok(None),
            false => Err(Error::new(
                "change the workers' user or group",
                &Errno::EPERM.into(),
                "start as root, or leave out --user and --group",
            )),
        };
    }
    if user.as_ref().is_some_and(|user| !user.uid.is_root()) && !may_signal_others() {
        return Err(Error::new(
            "signal workers of another user, and so not end them",
            &Errno::EPERM.into(),
            "start with the capability CAP_KILL (docker run --cap-add KILL), or as that user",
        ));
    }
    let credentials = Credentials::new(user.as_ref(), gid).map_err(|error| {
        let name = user.as_ref().map_or("", |user| &user.name);
        Error::new(format_args!("find the groups of {name}"), &error.into(), "give --user another")
    });
    credentials.map(Some)
}

fn known<T>(kind: &str, name: &str, found: nix::Result<Option<T>>) -> Result<T, Error> {
    match found {
        Ok(Some(found)) => Ok(found),
        Ok(None) => {
            Err(Error::plain(format!("there is no {kind} {name}; give --{kind} one that this system knows")))
        }
        Err(error) => Err(Error::new(
            format_args!("look up the {kind} {name}"),
            &error.into(),
            format_args!("try again, or give --{kind} its number"),
        )),
    }
}
