//! Memory that stays shared after `fork`.
//!
//! Ordinary memory is copied on write: after a fork each process changes only
//! its own copy. A mapping made with `MAP_SHARED` before the fork is the
//! exception, asked for on purpose. See mmap(2).

use std::num::NonZeroUsize;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};

/// Sixteen numbers on 128 bytes: two cache lines, because processors fetch
/// them in pairs. Two processes that write to different lines never slow each
/// other down.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct Line(pub [AtomicU64; 16]);

/// Maps `lines` lines, all zero, that this process and all its later children
/// see at the same address. They stay for as long as the process lives; pages
/// that nobody touches cost nothing.
///
/// # Errors
/// `ENOMEM` when the system has no room for the mapping, `EINVAL` for none.
pub fn share(lines: usize) -> nix::Result<&'static [Line]> {
    let size = NonZeroUsize::new(lines * size_of::<Line>()).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_SHARED)? };
    // SAFETY: the mapping has this size, starts on a page and so is aligned,
    // is never unmapped, and zero bytes are atomics of value 0. Whoever writes
    // to it, in whichever process, has only these atomics to do so.
    Ok(unsafe { std::slice::from_raw_parts(place.cast::<Line>().as_ptr(), lines) })
}
