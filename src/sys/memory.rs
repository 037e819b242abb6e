//! Memory that stays shared after `fork`, and memory that is only one process's.
//!
//! Ordinary memory is copied on write: after a fork each process changes only
//! its own copy. A mapping made with `MAP_SHARED` before the fork is the
//! exception, asked for on purpose. Of a file, it can be seen from outside, too.
//! See mmap(2).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Sixteen numbers on 128 bytes: two cache lines, because processors fetch
/// them in pairs. Two processes that write to different lines never slow each
/// other down.
#[derive(Debug)]
#[repr(C, align(128))]
pub struct CacheLine(pub [AtomicU64; 16]);

/// Maps `lines` lines, all zero, that this process and all its later children
/// see at the same address. They stay for as long as the process lives; pages
/// that nobody touches cost nothing.
///
/// # Errors
/// `ENOMEM` when the system has no room for the mapping, `EINVAL` for none.
pub fn map_shared(lines: usize) -> nix::Result<&'static [CacheLine]> {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe { mmap_anonymous(None, size(lines)?, access, MapFlags::MAP_SHARED)? };
    answer_bus_errors()?;
    // SAFETY: just mapped, to be read and written, for this many lines.
    Ok(unsafe { as_lines(place, lines) })
}

/// Memory of this process alone, all zero. Pages that are not used cost nothing; an
/// allocator would hand out some that the parent has used before the fork, and
/// copying those costs each worker as many bytes.
///
/// # Errors
/// As [`map_shared`].
pub fn map_private(bytes: usize) -> nix::Result<&'static mut [u8]> {
    let size = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe { mmap_anonymous(None, size, access, MapFlags::MAP_PRIVATE)? };
    // SAFETY: just mapped, of this size, for this caller alone, and never undone.
    Ok(unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>().as_ptr(), bytes) })
}

/// Maps the first `lines` lines of a file in the same way: what is written to
/// them is in the file at once, for whoever maps or reads it.
///
/// If somebody cuts the file short, the lines turn into others, of this process
/// and its later children alone, all zero. One file a process can be mapped.
///
/// # Errors
/// As [`map_shared`], and what mmap(2) lists for files.
pub fn map_shared_file(file: &File, lines: usize) -> nix::Result<&'static [CacheLine]> {
    map_file(file, lines, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)
}

/// As [`map_shared_file`], but only to look: the lines must not be written to.
///
/// # Errors
/// As [`map_shared_file`].
pub fn map_read_only(file: &File, lines: usize) -> nix::Result<&'static [CacheLine]> {
    map_file(file, lines, ProtFlags::PROT_READ)
}

fn map_file(file: &File, lines: usize, access: ProtFlags) -> nix::Result<&'static [CacheLine]> {
    let size = size(lines)?;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, file, 0)? };
    MAPPED_AT.store(place.as_ptr() as usize, Ordering::Relaxed);
    MAPPED_SIZE.store(size.get(), Ordering::Relaxed);
    answer_bus_errors()?;
    // SAFETY: just mapped, to be read at least, for this many lines.
    Ok(unsafe { as_lines(place, lines) })
}

fn size(lines: usize) -> nix::Result<NonZeroUsize> {
    NonZeroUsize::new(lines * size_of::<CacheLine>()).ok_or(Errno::EINVAL)
}

/// # Safety
/// `place` is a mapping of so many lines that is never undone. Whoever writes to
/// it, in whichever process, has only these atomics to do so.
unsafe fn as_lines(place: NonNull<c_void>, lines: usize) -> &'static [CacheLine] {
    // SAFETY: as above; a mapping starts on a page and so is aligned, and any
    // bytes are atomics of some value.
    unsafe { std::slice::from_raw_parts(place.cast::<CacheLine>().as_ptr(), lines) }
}

// Where the file is mapped; a size of 0 says that none is.
static MAPPED_AT: AtomicUsize = AtomicUsize::new(0);
static MAPPED_SIZE: AtomicUsize = AtomicUsize::new(0);

/// A page of a mapped file that the file has no more is SIGBUS for who touches
/// it, and somebody else's carelessness is not to be our death. Without a file, it
/// is: Rust's own handler lets the first one pass when somebody has sent it.
///
/// # Errors
/// None that a correct call can cause.
fn answer_bus_errors() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::SigAction(replace_mapping), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler calls nothing but mmap, sigaction and raise, bare system
    // calls that take no lock and allocate nothing.
    unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop)
}

/// Puts memory of the system's own in the place of the file; then the
/// interrupted access is made again.
extern "C" fn replace_mapping(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let (at, size) = (MAPPED_AT.load(Ordering::Relaxed), MAPPED_SIZE.load(Ordering::Relaxed));
    // Sent by kill, it has no address: SI_USER is 0 on Linux, 0x10001 on macOS.
    // SAFETY: the kernel hands a whole siginfo to a handler that was installed
    // with SA_SIGINFO.
    let fault = unsafe { (1..0x10000).contains(&(*info).si_code).then(|| (*info).si_addr() as usize) };
    if fault.is_some_and(|fault| (at..at + size).contains(&fault)) {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the place is our mapping of the file, and nothing but atomics
        // is ever there.
        let place = unsafe { libc::mmap(at as *mut c_void, size, access, flags, -1, 0) };
        if place != libc::MAP_FAILED {
            return;
        }
    }
    // As it would have been without us.
    // SAFETY: both may be called in a handler, and the default needs no code.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}
