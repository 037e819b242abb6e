//! How a worker takes up the life of a process of its own: its rights, its signals,
//! its sandbox.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};

use log::{Level, log, warn};
use nix::libc::{STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use nix::unistd::{self, geteuid, getpid};

use super::WorkerContext;
use super::accept::{PAUSE, sleep_until_later};
use crate::echo::BUFFER_SIZE;
use crate::explain;
use crate::log::{log_fd, narrate};
use crate::sys::sandbox::{Layer, LayerError, Sandbox};
use crate::sys::{memory, process, signal};

/// Takes up the life of a process of its own. The order matters: a change of
/// user undoes the watch on the parent, the sandbox lets no process change its user
/// nor watch, and one that is ready can be told to leave. Returns the buffer for the
/// bytes of its clients.
pub(super) fn init(job: &WorkerContext<'_>) -> io::Result<&'static mut [u8]> {
    let buffer = memory::map_private(BUFFER_SIZE)?;
    close_inherited(job)?;
    if let Some(rights) = job.rights {
        rights.take()?;
        narrate::server::take_credentials(rights);
    }
    process::set_pdeathsig()?;
    signal::install_worker_handlers()?;
    explain!("sigaction(SIGTERM): from now on it asks this worker to leave; so does the parent's death");
    job.row.set_credentials(
        geteuid(),
        if job.options.no_sandbox { Sandbox::default() } else { enter_sandbox(job) },
    );
    // Shorter than PIPE_BUF, so it goes at once or, with the parent dead, never.
    let _ = (&job.ready).write(&getpid().as_raw().to_ne_bytes());
    Ok(buffer)
}

/// Closes what this process has inherited and does not need: the parent's files, and whatever
/// the program was started with. With another user's rights, or in a sandbox, a worker could
/// still read what root had opened.
fn close_inherited(job: &WorkerContext<'_>) -> io::Result<()> {
    // Stand-ins, or clients' sockets would get these numbers.
    unistd::dup2_stdin(job.null)?;
    unistd::dup2_stdout(job.null)?;
    if log_fd() != STDERR_FILENO {
        unistd::dup2_stderr(job.null)?;
    }
    process::close_all_but(&[&shared(job)[..], &[job.ready.as_raw_fd()]].concat())?;
    explain!("close_range(): all is closed that a worker does not need, such as files of the parent's");
    Ok(())
}

/// The descriptors of what is other processes' as well.
fn shared(job: &WorkerContext<'_>) -> [RawFd; 5] {
    [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, log_fd(), job.listener.fd()]
}

/// Enters all of the sandbox that this system has. Returns what is in force.
fn enter_sandbox(job: &WorkerContext<'_>) -> Sandbox {
    // It is the same for all, so those of one slot say it.
    let level = if job.slot == 0 { Level::Warn } else { Level::Debug };
    Layer::ALL.iter().fold(Sandbox::default(), |sandbox, layer| match enter(*layer, job) {
        Ok(()) => {
            explain!("{}: {}", layer.name(), layer.effect());
            sandbox.with(*layer)
        }
        Err(why) => {
            log!(level, "the sandbox lacks {}: {why}", layer.name());
            sandbox
        }
    })
}

/// Waits for a layer that can't be had at the moment: nobody is to be served outside
/// for want of a descriptor.
fn enter(layer: Layer, job: &WorkerContext<'_>) -> Result<(), String> {
    let mut said = false;
    loop {
        match layer.enter(&shared(job)) {
            Ok(()) => return Ok(()),
            Err(LayerError::Unsupported(why)) => return Err(why),
            Err(LayerError::Transient(why)) if signal::stop_requested() || process::is_orphan(job.parent) => {
                return Err(why);
            }
            Err(LayerError::Transient(why)) => {
                if !said {
                    warn!(
                        "cannot enter the sandbox's {}: {why}; serving nobody, and trying again every {PAUSE:?}; \
                         look at ulimit -n, fs.file-max and free memory",
                        layer.name()
                    );
                }
                said = true;
                // A signal is looked at above.
                let _ = sleep_until_later();
            }
        }
    }
}
