//! How a worker takes up the life of a process of its own: its rights, its signals,
//! its sandbox.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};

use log::{Level, log, warn};
use nix::libc::{STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use nix::unistd::{self, geteuid, getpid};

use super::Job;
use super::accept::{PAUSE, sleep_until_later};
use crate::echo::BUFFER_SIZE;
use crate::explain;
use crate::logger;
use crate::sys::sandbox::{Part, Refusal, Sandbox};
use crate::sys::{memory, process, signal};

/// Takes up the life of a process of its own. The order matters: a change of
/// user undoes the watch on the parent, the sandbox lets no process change its user
/// nor watch, and one that is ready can be told to leave. Returns the buffer for the
/// bytes of its clients.
pub(super) fn settle(job: &Job<'_>) -> io::Result<&'static mut [u8]> {
    let buffer = memory::buffer(BUFFER_SIZE)?;
    close_inherited(job)?;
    if let Some(rights) = job.rights {
        rights.take()?;
    }
    process::watch_parent()?;
    signal::become_worker()?;
    explain!("sigaction(SIGTERM): from now on it asks this worker to leave; so does the parent's death");
    job.row.holds(geteuid(), if job.options.no_sandbox { Sandbox::default() } else { enter_sandbox(job) });
    // Shorter than PIPE_BUF, so it goes at once or, with the parent dead, never.
    let _ = (&job.ready).write(&getpid().as_raw().to_ne_bytes());
    Ok(buffer)
}

/// Closes what this process has inherited and does not need: the parent's files, and whatever
/// the program was started with. With another user's rights, or in a sandbox, a worker could
/// still read what root had opened.
fn close_inherited(job: &Job<'_>) -> io::Result<()> {
    // Stand-ins, or clients' sockets would get these numbers.
    unistd::dup2_stdin(job.null)?;
    unistd::dup2_stdout(job.null)?;
    if logger::descriptor() != STDERR_FILENO {
        unistd::dup2_stderr(job.null)?;
    }
    process::close_all_but(&[&shared(job)[..], &[job.ready.as_raw_fd()]].concat())?;
    explain!("close_range(): all is closed that a worker does not need, such as files of the parent's");
    Ok(())
}

/// The descriptors of what is other processes' as well.
fn shared(job: &Job<'_>) -> [RawFd; 5] {
    [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, logger::descriptor(), job.listener.fd()]
}

/// Enters all of the sandbox that this system has. Returns what is in force.
fn enter_sandbox(job: &Job<'_>) -> Sandbox {
    // It is the same for all, so those of one slot say it.
    let level = if job.slot == 0 { Level::Warn } else { Level::Debug };
    Part::ALL.iter().fold(Sandbox::default(), |sandbox, part| match enter(*part, job) {
        Ok(()) => {
            explain!("{}: {}", part.name(), part.effect());
            sandbox.with(*part)
        }
        Err(why) => {
            log!(level, "the sandbox lacks {}: {why}", part.name());
            sandbox
        }
    })
}

/// Waits for a part that can't be had at the moment: nobody is to be served outside
/// for want of a descriptor.
fn enter(part: Part, job: &Job<'_>) -> Result<(), String> {
    let mut said = false;
    loop {
        match part.enter(&shared(job)) {
            Ok(()) => return Ok(()),
            Err(Refusal::Lacking(why)) => return Err(why),
            Err(Refusal::NotNow(why)) if signal::asked_to_leave() || process::is_orphan(job.parent) => {
                return Err(why);
            }
            Err(Refusal::NotNow(why)) => {
                if !said {
                    warn!(
                        "cannot enter the sandbox's {}: {why}; serving nobody, and trying again every {PAUSE:?}; \
                         look at ulimit -n, fs.file-max and free memory",
                        part.name()
                    );
                }
                said = true;
                // A signal is looked at above.
                let _ = sleep_until_later();
            }
        }
    }
}
