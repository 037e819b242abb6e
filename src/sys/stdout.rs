//! Was stdout closed when the program started?
//!
//! Rust's runtime opens /dev/null in the place of a closed descriptor 0, 1 or 2, before
//! main: what is printed then vanishes without an error. So the look comes before it, in a
//! function that the loader calls (a constructor). What /dev/null itself was given as stdout
//! for looks the same in main, but not there.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Was it closed then?
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

// SAFETY: the section holds pointers to functions that the loader calls, once each, before
// main; it passes arguments on Linux, which a C function may ignore.
#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = look;

/// Nothing of Rust's library is ready yet: only a bare system call and an atomic.
extern "C" fn look() {
    // SAFETY: F_GETFD looks at the descriptor's flags, and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags < 0, Ordering::Relaxed);
}
