//! What a forked child does before it serves: it drops what it does not need, changes its
//! user, installs its signal handlers and enters its sandbox.

use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};

use log::{Level, log, warn};
use nix::libc::{STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use nix::unistd::{self, geteuid, getpid};

use super::accept::PAUSE;
use super::{WorkerContext, syscalls, wakeup};
use crate::echo::BUFFER_SIZE;
use crate::error::{shortage, strerror};
use crate::log::log_fd;
use crate::log::narrate::worker as narrate;
use crate::sys::sandbox::{Layer, Sandbox};
use crate::sys::{memory, process, readiness};

/// Makes this child a worker. The order matters: a change of user undoes the watch on the
/// parent; the sandbox allows neither; and a worker that is ready can be asked to stop.
/// Returns the buffer for the bytes of its connections.
pub(super) fn init(context: &WorkerContext<'_>) -> io::Result<&'static mut [u8]> {
    let buffer = memory::map_private(BUFFER_SIZE)?;
    close_inherited(context)?;
    if let Some(rights) = context.rights {
        rights.take()?;
        crate::log::narrate::server::take_credentials(rights);
    }
    process::set_pdeathsig()?;
    wakeup::install_handlers()?;
    narrate::handlers_installed();
    context.row.set_credentials(
        geteuid(),
        if context.options.no_sandbox { Sandbox::default() } else { enter_sandbox(context) },
    );
    // Shorter than PIPE_BUF, so it goes at once or, with the parent dead, never.
    let _ = (&context.ready).write(&getpid().as_raw().to_ne_bytes());
    Ok(buffer)
}

/// Closes what this process has inherited and does not need: the parent's files, and all
/// that the program was started with. With another user's rights, or in a sandbox, a worker
/// could still read what root had opened.
fn close_inherited(context: &WorkerContext<'_>) -> io::Result<()> {
    // These numbers stay in use, or the sockets of connections would get them.
    unistd::dup2_stdin(context.null)?;
    unistd::dup2_stdout(context.null)?;
    if log_fd() != STDERR_FILENO {
        unistd::dup2_stderr(context.null)?;
    }
    process::close_all_but(&[&shared(context)[..], &[context.ready.as_raw_fd()]].concat())?;
    narrate::closed_inherited();
    Ok(())
}

/// The descriptors that other processes share.
fn shared(context: &WorkerContext<'_>) -> [RawFd; 5] {
    [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, log_fd(), context.listener.fd()]
}

/// Enters all layers of the sandbox that this system has. Returns those in force.
fn enter_sandbox(context: &WorkerContext<'_>) -> Sandbox {
    // All workers lack the same layers, so one of them warns.
    let level = if context.slot == 0 { Level::Warn } else { Level::Debug };
    Layer::ALL.iter().fold(Sandbox::default(), |sandbox, layer| match enter(*layer, context) {
        Ok(()) => {
            narrate::layer_entered(*layer);
            sandbox.with(*layer)
        }
        Err(why) => {
            log!(level, "the sandbox lacks {}: {why}", layer.name());
            sandbox
        }
    })
}

/// Enters one layer. Waits where it cannot be had at the moment: a lack of descriptors must
/// not lead to a worker that serves outside the sandbox.
fn enter(layer: Layer, context: &WorkerContext<'_>) -> Result<(), String> {
    let mut said = false;
    loop {
        let Err(error) = layer.enter(&syscalls::allowed(&shared(context))) else { return Ok(()) };
        let why = strerror(&error);
        if shortage(&error).is_none() || wakeup::stop_requested() || process::is_orphan(context.parent) {
            return Err(why);
        }
        if !said {
            warn!(
                "cannot enter the sandbox's {}: {why}; serving no client, and trying again every {PAUSE:?}; \
                 look at ulimit -n, fs.file-max and free memory",
                layer.name()
            );
        }
        said = true;
        // The flag that a signal sets is read above.
        let _ = readiness::sleep(PAUSE);
    }
}
