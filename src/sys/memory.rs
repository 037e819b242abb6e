//! Memory that stays shared after `fork`, and memory that is only one process's.
//!
//! Ordinary memory is copied on write: after a fork each process changes only
//! its own copy. A mapping made with `MAP_SHARED` before the fork is the
//! exception, made on purpose. If it is of a file, other processes can map it, too.
//! See mmap(2).
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::fs::File;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

/// Memory that may be shared with other processes and may hold any bytes.
///
/// # Safety
/// Each part of the type is an atomic number: every value of its bytes is valid, and a
/// change by another process is no data race.
pub unsafe trait Atomics: 'static {
    /// Sets each number to 0.
    fn clear(&self);
}

// SAFETY: an atomic number has no invalid value.
unsafe impl Atomics for AtomicU64 {
    fn clear(&self) {
        self.store(0, Ordering::Relaxed);
    }
}

// SAFETY: as each of its elements.
unsafe impl<T: Atomics, const N: usize> Atomics for [T; N] {
    fn clear(&self) {
        self.iter().for_each(T::clear);
    }
}

/// Defines `#[repr(C)]` structs of [`Atomics`], each with a size that is a multiple of 128
/// bytes: two cache lines, because processors fetch them in pairs. Two processes that write
/// to different structs never slow each other down.
macro_rules! shared_structs {
    ($($(#[$meta:meta])* $vis:vis struct $name:ident {
        $($(#[$field_meta:meta])* $field_vis:vis $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Debug)]
        #[repr(C, align(128))]
        $vis struct $name { $($(#[$field_meta])* $field_vis $field: $type,)* }

        // SAFETY: the bounds say that each field is made of atomics, and padding may hold
        // any bytes.
        // The macro is expanded in another room, which denies the keyword.
        #[allow(unsafe_code)]
        unsafe impl $crate::sys::memory::Atomics for $name
        where $($type: $crate::sys::memory::Atomics,)*
        {
            fn clear(&self) {
                $($crate::sys::memory::Atomics::clear(&self.$field);)*
            }
        }
    )*};
}
pub(crate) use shared_structs;

const READ_WRITE: ProtFlags = ProtFlags::PROT_READ.union(ProtFlags::PROT_WRITE);

/// Maps a `T` that this process and all its later children see at the same address. It stays
/// for as long as the process lives. Without a file it is all zero, and pages that are never
/// touched cost nothing. With one it is the beginning of the file: what is written to it is
/// in the file at once, and is seen by each process that maps or reads the file.
///
/// If the file is cut short, the memory is replaced by other memory, all zero, of this
/// process and its later children alone. One file a process can be mapped.
///
/// # Errors
/// `ENOMEM` when the system has no room for the mapping, `EINVAL` for an empty one, and what
/// mmap(2) lists for files.
pub fn map_shared<T: Atomics>(file: Option<&File>) -> nix::Result<&'static T> {
    map(file, READ_WRITE)
}

/// As [`map_shared`], but only to be read: a store to it is SIGSEGV.
///
/// # Errors
/// As [`map_shared`].
pub fn map_read_only<T: Atomics>(file: &File) -> nix::Result<&'static T> {
    map(Some(file), ProtFlags::PROT_READ)
}

fn map<T: Atomics>(file: Option<&File>, access: ProtFlags) -> nix::Result<&'static T> {
    let size = NonZeroUsize::new(size_of::<T>()).ok_or(Errno::EINVAL)?;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe {
        match file {
            Some(file) => mmap(None, size, access, MapFlags::MAP_SHARED, file, 0)?,
            None => mmap_anonymous(None, size, access, MapFlags::MAP_SHARED)?,
        }
    };
    if file.is_some() {
        MAPPED_AT.store(place.as_ptr() as usize, Ordering::Relaxed);
        MAPPED_SIZE.store(size.get(), Ordering::Relaxed);
    }
    handle_bus_errors()?;
    // SAFETY: just mapped, of this size, and never unmapped. A mapping starts on a page,
    // and so is aligned.
    Ok(unsafe { place.cast().as_ref() })
}

/// Memory of this process alone, all zero. Pages that are not used cost nothing; an
/// allocator would hand out some that the parent has used before the fork, and
/// copying those costs each worker as many bytes.
///
/// # Errors
/// As [`map_shared`].
pub fn map_private(bytes: usize) -> nix::Result<&'static mut [u8]> {
    let size = NonZeroUsize::new(bytes).ok_or(Errno::EINVAL)?;
    // SAFETY: the kernel chooses the place, so no memory in use is mapped over.
    let place = unsafe { mmap_anonymous(None, size, READ_WRITE, MapFlags::MAP_PRIVATE)? };
    // SAFETY: just mapped, of this size, for this caller alone, and never undone.
    Ok(unsafe { std::slice::from_raw_parts_mut(place.cast::<u8>().as_ptr(), bytes) })
}

// Where the file is mapped; a size of 0 says that none is.
static MAPPED_AT: AtomicUsize = AtomicUsize::new(0);
static MAPPED_SIZE: AtomicUsize = AtomicUsize::new(0);

/// Truncating the file must not kill the process by SIGBUS: access to a page that the file
/// has no more. Without a file, SIGBUS kills: Rust's own handler would ignore the first one
/// that is sent by kill(2).
fn handle_bus_errors() -> nix::Result<()> {
    let action = SigAction::new(SigHandler::SigAction(replace_mapping), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler calls nothing but mmap, sigaction and raise, bare system
    // calls that take no lock and allocate nothing.
    unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop)
}

/// Puts anonymous memory in the place of the file; then the interrupted access is made
/// again.
extern "C" fn replace_mapping(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let (at, size) = (MAPPED_AT.load(Ordering::Relaxed), MAPPED_SIZE.load(Ordering::Relaxed));
    // Sent by kill, it has no address: SI_USER is 0 on Linux, 0x10001 on macOS.
    // SAFETY: the kernel hands a whole siginfo to a handler that was installed
    // with SA_SIGINFO.
    let fault = unsafe { (1..0x10000).contains(&(*info).si_code).then(|| (*info).si_addr() as usize) };
    if fault.is_some_and(|fault| (at..at + size).contains(&fault)) {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_SHARED | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: the place is this process's mapping of the file, and nothing but atomics
        // is ever there.
        let place = unsafe { libc::mmap(at as *mut c_void, size, access, flags, -1, 0) };
        if place != libc::MAP_FAILED {
            return;
        }
    }
    // As without this handler.
    // SAFETY: both may be called in a handler, and the default needs no code.
    unsafe {
        libc::signal(libc::SIGBUS, libc::SIG_DFL);
        libc::raise(libc::SIGBUS);
    }
}
