//! Was stdout closed when the program started?
//!
//! Rust's runtime opens /dev/null in the place of a closed descriptor 0, 1 or 2, before
//! main, and output then vanishes without an error. In main that cannot be told from a
//! stdout that was redirected to /dev/null. So a constructor, which the loader calls before
//! the runtime starts, checks the descriptor.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

use nix::libc;

static WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Was stdout closed when the program started?
pub fn was_closed() -> bool {
    WAS_CLOSED.load(Ordering::Relaxed)
}

// SAFETY: the section holds pointers to functions that the loader calls, once each, before
// main; it passes arguments on Linux, which a C function may ignore.
#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static BEFORE_MAIN: extern "C" fn() = check;

/// Rust's library is not ready yet, so this uses only a system call and an atomic.
extern "C" fn check() {
    // SAFETY: F_GETFD reads the descriptor's flags, and changes nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    WAS_CLOSED.store(flags < 0, Ordering::Relaxed);
}
