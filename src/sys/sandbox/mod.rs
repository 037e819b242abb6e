//! The sandbox: what a process gives up for good, so that a fault in it, or an intruder,
//! can do no more than it must do anyway.
//!
//! Each [`Layer`] is a mechanism of its own in the kernel. Where the kernel lacks one, the
//! others hold. What is open already stays usable in all of them. Which system calls
//! seccomp allows is handed in, as a list of [`Rule`]s. Only Linux has these layers;
//! elsewhere the sandbox is empty.

use std::{fmt, io};

use nix::libc::c_int;

#[cfg(target_os = "linux")]
mod linux;

/// A layer of the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// No program that is executed can give rights back, as setuid programs do. The
    /// other layers require it. See prctl(2), PR_SET_NO_NEW_PRIVS.
    NoNewPrivs,
    /// No file, no TCP port to bind or to connect to, no signal to any other
    /// process. See landlock(7).
    Landlock,
    /// Only the system calls that are allowed; all others fail with EPERM. See
    /// seccomp(2).
    Seccomp,
}

impl Layer {
    /// All layers that this system may have, in the order in which they are entered.
    pub const ALL: &[Layer] =
        if cfg!(target_os = "linux") { &[Layer::NoNewPrivs, Layer::Landlock, Layer::Seccomp] } else { &[] };

    /// The kernel's name for it.
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

    /// Enters this layer for good, with the calling thread. Its later threads and children
    /// inherit it, and other threads are not concerned. `allowed` is for seccomp.
    ///
    /// # Errors
    /// The kernel lacks the layer or refuses it, has only a part of it, or lacks what it
    /// takes at the moment: descriptors or memory.
    pub fn enter(self, allowed: &[Rule]) -> io::Result<()> {
        #[cfg(target_os = "linux")]
        return match self {
            Layer::NoNewPrivs => linux::no_new_privs(),
            Layer::Landlock => linux::landlock(),
            Layer::Seccomp => linux::seccomp(allowed),
        };
        #[cfg(not(target_os = "linux"))]
        let _ = allowed;
        #[cfg(not(target_os = "linux"))]
        Err(io::Error::other("this system has none"))
    }
}

/// The number of a system call.
pub type Syscall = i64;

/// Constants of Linux's libc, as numbers. Elsewhere, where no layer reads them, they are 0:
/// so a list of rules compiles on each system.
macro_rules! linux_constants {
    ($($name:ident),+ $(,)?) => {{
        #[cfg(target_os = "linux")]
        let numbers = [$(::nix::libc::$name as $crate::sys::sandbox::Syscall),+];
        #[cfg(not(target_os = "linux"))]
        let numbers = [$({ let _ = stringify!($name); 0 as $crate::sys::sandbox::Syscall }),+];
        numbers
    }};
}
pub(crate) use linux_constants;

/// A system call that is allowed if all conditions on its arguments hold. A call may have
/// several rules, of which one must hold.
#[derive(Debug)]
#[cfg_attr(not(target_os = "linux"), expect(dead_code, reason = "only seccomp reads it"))]
pub struct Rule {
    call: Syscall,
    conditions: Vec<Condition>,
}

impl Rule {
    /// Allows `call` where the conditions hold; without any it is always allowed.
    pub fn new(call: Syscall, conditions: impl IntoIterator<Item = Condition>) -> Rule {
        Rule { call, conditions: conditions.into_iter().collect() }
    }
}

/// A condition on the argument of that index, which is compared as an int.
#[derive(Debug, Clone, Copy)]
pub enum Condition {
    /// The argument has this value.
    Is(u8, c_int),
    /// The argument has another value than this one.
    IsNot(u8, c_int),
    /// Of the bits of the mask, which comes first, the argument has exactly these.
    Has(u8, c_int, c_int),
}

/// The layers that are in force, wholly, in some process: a bit for each.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sandbox(pub u64);

impl Sandbox {
    /// This sandbox, with one layer more.
    pub fn with(self, layer: Layer) -> Sandbox {
        Sandbox(self.0 | 1 << layer as u64)
    }

    /// The layers that both have.
    pub fn common(self, other: Sandbox) -> Sandbox {
        Sandbox(self.0 & other.0)
    }

    /// The layers in force.
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
