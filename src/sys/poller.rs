//! Waiting for many descriptors at once: epoll(7) on Linux, kqueue(2) on macOS.
//!
//! poll(2) is handed its whole list at each call, so a call costs as much as the list is
//! long. Here the kernel keeps the list between the calls, and a call costs as much as
//! there is ready. A descriptor is reported again and again for as long as it is ready
//! (level-triggered), so a reader that leaves some bytes for later loses none. A descriptor
//! that is closed leaves the list by itself.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::time::Instant;

#[cfg(target_os = "linux")]
use self::epoll as system;
#[cfg(not(target_os = "linux"))]
use self::kqueue as system;

/// The call in which [`Poller::wait`] blocks.
pub const WAIT_CALL: &str = if cfg!(target_os = "linux") { "epoll_wait()" } else { "kevent()" };

/// The most descriptors that one wait reports. The others are reported by the next one.
const AT_ONCE: usize = 256;

/// What a descriptor is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    /// Bytes, or an end of file.
    Bytes,
    /// Room for bytes to be sent.
    Room,
    /// Bytes, an end of file, or room: for a peer that sends and receives at the same time.
    BytesOrRoom,
    /// A connection at a listening socket that other processes wait for, too. On Linux one
    /// connection wakes one of them (EPOLLEXCLUSIVE): the one that has waited for the
    /// longest, if each removes the socket and adds it again after an accept. On macOS it
    /// wakes all of them.
    Connection,
}

/// A list of descriptors, which the kernel keeps.
#[derive(Debug)]
pub struct Poller(system::List);

impl Poller {
    /// An empty list. It has a descriptor of its own.
    ///
    /// # Errors
    /// `EMFILE`, `ENFILE`, `ENOMEM`.
    pub fn new() -> nix::Result<Poller> {
        system::List::new().map(Poller)
    }

    /// Adds a descriptor (`before` is None), removes it (`after` is None), or changes what it
    /// is waited for.
    ///
    /// # Errors
    /// `ENOMEM`, and `ENOSPC` when fs.epoll.max_user_watches is reached.
    pub fn change(
        &self,
        fd: impl AsFd,
        before: Option<Interest>,
        after: Option<Interest>,
    ) -> nix::Result<()> {
        if before == after {
            Ok(())
        } else {
            self.0.change(fd.as_fd().as_raw_fd(), fd.as_fd(), before, after)
        }
    }

    /// Blocks until a descriptor is ready, or until `deadline`; None is for ever. `ready` gets
    /// those that are, each once.
    ///
    /// # Errors
    /// `EINTR` when a signal came first.
    pub fn wait(&mut self, ready: &mut Vec<RawFd>, deadline: Option<Instant>) -> nix::Result<()> {
        ready.clear();
        self.0.wait(ready, deadline)
    }

    /// As [`Poller::wait`], but to the microsecond: epoll counts in whole milliseconds, and on
    /// Linux this costs a system call more.
    ///
    /// # Errors
    /// As [`Poller::wait`].
    pub fn wait_precisely(&mut self, ready: &mut Vec<RawFd>, deadline: Option<Instant>) -> nix::Result<()> {
        ready.clear();
        self.0.wait_precisely(ready, deadline)
    }
}

#[cfg(target_os = "linux")]
mod epoll {
    use std::os::fd::{AsFd, BorrowedFd, RawFd};
    use std::time::Instant;

    use nix::poll::{PollFd, PollFlags, ppoll};
    use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags};

    use super::{AT_ONCE, Interest};
    use crate::sys::readiness::timeout_until;

    #[derive(Debug)]
    pub(super) struct List {
        epoll: Epoll,
        /// Where a wait puts what it reports.
        events: Box<[EpollEvent; AT_ONCE]>,
    }

    impl List {
        pub fn new() -> nix::Result<List> {
            let events = Box::new([EpollEvent::empty(); AT_ONCE]);
            Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(|epoll| List { epoll, events })
        }

        pub fn change(
            &self,
            number: RawFd,
            fd: BorrowedFd<'_>,
            before: Option<Interest>,
            after: Option<Interest>,
        ) -> nix::Result<()> {
            let Some(interest) = after else { return self.epoll.delete(fd) };
            let mut event = EpollEvent::new(flags(interest), number as u64);
            match before {
                None => self.epoll.add(fd, event),
                Some(_) => self.epoll.modify(fd, &mut event),
            }
        }

        pub fn wait(&mut self, ready: &mut Vec<RawFd>, deadline: Option<Instant>) -> nix::Result<()> {
            let count = self.epoll.wait(&mut *self.events, timeout_until(deadline))?;
            ready.extend(self.events[..count].iter().map(|event| event.data() as RawFd));
            Ok(())
        }

        pub fn wait_precisely(
            &mut self,
            ready: &mut Vec<RawFd>,
            deadline: Option<Instant>,
        ) -> nix::Result<()> {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()).into());
            ppoll(&mut [PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN)], left, None)?;
            self.wait(ready, Some(Instant::now()))
        }
    }

    fn flags(interest: Interest) -> EpollFlags {
        match interest {
            Interest::Bytes => EpollFlags::EPOLLIN,
            Interest::Room => EpollFlags::EPOLLOUT,
            Interest::BytesOrRoom => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
            Interest::Connection => EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE,
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod kqueue {
    use std::os::fd::{BorrowedFd, RawFd};
    use std::time::Instant;

    use nix::sys::event::{EvFlags, EventFilter, FilterFlag, KEvent, Kqueue};
    use nix::sys::time::TimeSpec;

    use super::{AT_ONCE, Interest};

    #[derive(Debug)]
    pub(super) struct List {
        kqueue: Kqueue,
        /// Where a wait puts what it reports.
        events: Box<[KEvent; AT_ONCE]>,
    }

    impl List {
        pub fn new() -> nix::Result<List> {
            let empty = KEvent::new(0, EventFilter::EVFILT_READ, EvFlags::empty(), FilterFlag::empty(), 0, 0);
            let events = Box::new([empty; AT_ONCE]);
            Kqueue::new().map(|kqueue| List { kqueue, events })
        }

        pub fn change(
            &self,
            number: RawFd,
            _: BorrowedFd<'_>,
            before: Option<Interest>,
            after: Option<Interest>,
        ) -> nix::Result<()> {
            let event =
                |filter: &_, flags| KEvent::new(number as usize, *filter, flags, FilterFlag::empty(), 0, 0);
            let deleted = before.map_or([].as_slice(), filters).iter();
            let added = after.map_or([].as_slice(), filters).iter();
            let changes: Vec<_> = deleted
                .map(|filter| event(filter, EvFlags::EV_DELETE))
                .chain(added.map(|filter| event(filter, EvFlags::EV_ADD)))
                .collect();
            self.kqueue.kevent(&changes, &mut [], None).map(drop)
        }

        pub fn wait(&mut self, ready: &mut Vec<RawFd>, deadline: Option<Instant>) -> nix::Result<()> {
            let timeout = deadline.map(|deadline| {
                *TimeSpec::from_duration(deadline.saturating_duration_since(Instant::now())).as_ref()
            });
            let count = self.kqueue.kevent(&[], &mut *self.events, timeout)?;
            ready.extend(self.events[..count].iter().map(|event| event.ident() as RawFd));
            // With bytes and room a descriptor has two events.
            ready.sort_unstable();
            ready.dedup();
            Ok(())
        }

        /// kqueue counts in nanoseconds.
        pub fn wait_precisely(
            &mut self,
            ready: &mut Vec<RawFd>,
            deadline: Option<Instant>,
        ) -> nix::Result<()> {
            self.wait(ready, deadline)
        }
    }

    fn filters(interest: Interest) -> &'static [EventFilter] {
        match interest {
            Interest::Bytes | Interest::Connection => &[EventFilter::EVFILT_READ],
            Interest::Room => &[EventFilter::EVFILT_WRITE],
            Interest::BytesOrRoom => &[EventFilter::EVFILT_READ, EventFilter::EVFILT_WRITE],
        }
    }
}
