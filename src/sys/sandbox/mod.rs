//! What a worker gives up before it talks to anybody, so that one gone wrong, or
//! taken over by a client, can do no more than serve.
//!
//! Each [`Layer`] is a door of its own that the kernel closes for good. Where it
//! lacks one, the others hold, and the worker serves all the same. All of them
//! let pass what is open already: the listening socket, the log; but seccomp lets
//! none change what these are to the other processes. Only Linux has them;
//! elsewhere the sandbox is empty.
//!
//! Left out on purpose: the parent. It must fork, and signal its workers.

use std::fmt;
use std::os::fd::RawFd;

#[cfg(target_os = "linux")]
mod linux;

/// A layer of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// No program that is executed can give rights back, as setuid ones do. The
    /// others ask for it. See prctl(2), PR_SET_NO_NEW_PRIVS.
    NoNewPrivs,
    /// No file, no TCP port to bind or to connect to, no signal to any other
    /// process. See landlock(7).
    Landlock,
    /// Only the system calls of a worker's loop; all others fail with EPERM.
    /// See seccomp(2).
    Seccomp,
}

impl Layer {
    /// All that this system may have, in the order in which they are entered.
    pub const ALL: &[Layer] =
        if cfg!(target_os = "linux") { &[Layer::NoNewPrivs, Layer::Landlock, Layer::Seccomp] } else { &[] };

    /// The kernel's word for it.
    pub fn name(self) -> &'static str {
        match self {
            Layer::NoNewPrivs => "no_new_privs",
            Layer::Landlock => "landlock",
            Layer::Seccomp => "seccomp",
        }
    }

    /// What it does, in a few words.
    pub fn effect(self) -> &'static str {
        match self {
            Layer::NoNewPrivs => "no program can give this process rights back",
            Layer::Landlock => {
                "no file can be opened, no TCP port bound or connected to, no other process signalled"
            }
            Layer::Seccomp => "only the system calls of this loop are left",
        }
    }

    /// Closes this door behind the calling process, for good. Its only thread
    /// calls this; what it forks later inherits it. What it has open under the
    /// descriptors `shared` is other processes' as well, and must stay as it is.
    ///
    /// # Errors
    /// The kernel lacks it or refuses it, has it only in layer, or lacks what it takes
    /// at the moment.
    pub fn enter(self, shared: &[RawFd]) -> Result<(), LayerError> {
        #[cfg(target_os = "linux")]
        return match self {
            Layer::NoNewPrivs => linux::no_new_privs(),
            Layer::Landlock => linux::landlock(),
            Layer::Seccomp => linux::seccomp(shared),
        };
        #[cfg(not(target_os = "linux"))]
        let _ = shared;
        #[cfg(not(target_os = "linux"))]
        Err(LayerError::Unsupported("this system has none".into()))
    }
}

/// Why a door stays open, in words.
#[derive(Debug)]
pub enum LayerError {
    /// The kernel doesn't have it, or not wholly; and that won't change.
    Unsupported(String),
    /// It lacks descriptors or memory; later it may have some.
    Transient(String),
}

/// The parts that are in force, wholly, in some process.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox(u64);

impl Sandbox {
    /// This one, and one layer more.
    pub fn with(self, layer: Layer) -> Sandbox {
        Sandbox(self.0 | 1 << layer as u64)
    }

    /// As a number, a bit for each layer.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Of such a number.
    pub fn from_bits(bits: u64) -> Sandbox {
        Sandbox(bits)
    }

    /// The parts in force.
    pub fn parts(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.iter().copied().filter(move |layer| self.0 & 1 << *layer as u64 != 0)
    }
}

impl fmt::Display for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.parts().map(Layer::name).collect();
        f.write_str(if names.is_empty() { "none".into() } else { names.join(", ") }.as_str())
    }
}
