//! What a forked child does before it serves: it drops what it does not need, changes its
//! user, installs its signal handlers and enters its sandbox. Each thread enters the sandbox
//! for itself.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use log::{Level, log, warn};
use nix::libc::{STDERR_FILENO, STDIN_FILENO, STDOUT_FILENO};
use nix::unistd::{self, Pid};

use super::accept::PAUSE;
use super::{WorkerContext, syscalls, wakeup};
use crate::echo::BUFFER_SIZE;
use crate::error::{shortage, strerror};
use crate::log::log_fd;
use crate::log::narrate::worker as narrate;
use crate::sys::sandbox::{Layer, Rule, Sandbox};
use crate::sys::{descriptors, memory, process, readiness};

/// Makes this child a worker, but for the sandbox. The order matters: a change of user clears
/// what arranges for a signal at the parent's death; and a worker with handlers can be asked
/// to stop. Returns the buffer for the bytes of its connections.
pub(super) fn init(context: &WorkerContext<'_>) -> io::Result<&'static mut [u8]> {
    let buffer = memory::map_private(BUFFER_SIZE)?;
    close_inherited(context)?;
    if let Some(credentials) = context.credentials {
        credentials.take()?;
        crate::log::narrate::server::take_credentials(credentials);
    }
    process::set_pdeathsig()?;
    wakeup::install_handlers()?;
    narrate::handlers_installed();
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
    descriptors::close_all_but(&[&shared(context)[..], &[context.reports.as_raw_fd()]].concat())?;
    narrate::closed_inherited();
    Ok(())
}

/// The descriptors that other processes share.
fn shared(context: &WorkerContext<'_>) -> [RawFd; 5] {
    [STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO, log_fd(), context.listener.fd()]
}

/// How the threads of a worker enter its sandbox.
#[derive(Debug, Clone)]
pub(super) struct Sandboxing {
    is_wanted: bool,
    allowed: Arc<[Rule]>,
    /// The level of what is logged about layers that the system lacks.
    level: Level,
    parent: Pid,
}

impl Sandboxing {
    pub fn new(context: &WorkerContext<'_>) -> Sandboxing {
        Sandboxing {
            is_wanted: !context.options.no_sandbox,
            allowed: syscalls::allowed(&shared(context), context.options.model).into(),
            // All workers lack the same layers, so one of them warns.
            level: if context.slot == 0 { Level::Warn } else { Level::Debug },
            parent: context.parent,
        }
    }

    /// As this, but for another thread of the worker: one of them warns.
    pub fn of_another_thread(&self) -> Sandboxing {
        Sandboxing { level: Level::Debug, ..self.clone() }
    }

    /// Enters all layers of the sandbox that this system has, with the calling thread. Returns
    /// those in force.
    pub fn enter(&self) -> Sandbox {
        let layers = if self.is_wanted { Layer::ALL } else { &[] };
        layers.iter().fold(Sandbox::default(), |sandbox, layer| match self.enter_layer(*layer) {
            Ok(()) => {
                narrate::layer_entered(*layer);
                sandbox.with(*layer)
            }
            Err(why) => {
                log!(self.level, "the sandbox lacks {}: {why}", layer.name());
                sandbox
            }
        })
    }

    /// Enters one layer. Waits where it cannot be had at the moment: a lack of descriptors must
    /// not lead to a worker that serves outside the sandbox.
    fn enter_layer(&self, layer: Layer) -> Result<(), String> {
        let mut said = false;
        loop {
            let Err(error) = layer.enter(&self.allowed) else { return Ok(()) };
            let why = strerror(&error);
            if shortage(&error).is_none() || wakeup::stop_requested() || process::is_orphan(self.parent) {
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
}
