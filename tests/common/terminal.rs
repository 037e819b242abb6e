//! A terminal with a program in it, for tests of what people see.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::os::fd::AsFd;
use std::process::Child;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{Command, Pty, open};

use super::{PATIENCE, processes, wait_until};

fn size(rows: u16, columns: u16) -> (NonZeroU16, NonZeroU16) {
    (NonZeroU16::new(rows).unwrap(), NonZeroU16::new(columns).unwrap())
}

/// A terminal with a program in it, and what it shows.
pub struct Terminal {
    /// None: it has been closed.
    pty: Option<Arc<Pty>>,
    reader: Option<JoinHandle<()>>,
    closing: Arc<AtomicBool>,
    child: Child,
    parser: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// 80 columns, 24 rows; runs `script` in a shell.
    pub fn run(script: &str) -> Terminal {
        Terminal::sized(24, 80, script)
    }

    /// Runs `script` in a shell, in a terminal of this size.
    pub fn sized(rows: u16, columns: u16, script: &str) -> Terminal {
        let (pty, inside) = open().unwrap();
        pty.resize(Size::new(rows, columns)).unwrap();
        let command = Command::new("sh");
        let command = command.args(["-c", script]).env("TERM", "xterm-256color").env("LC_ALL", "C");
        let child = command
            .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
            .env("TMPDIR", env!("CARGO_TARGET_TMPDIR"))
            .spawn(inside)
            .unwrap();
        let (rows, columns) = size(rows, columns);
        let parser = Arc::new(Mutex::new(vt100::Parser::new(rows, columns, 0)));
        let pty = Arc::new(pty);
        let closing = Arc::new(AtomicBool::new(false));
        let (source, screen, end) = (Arc::clone(&pty), Arc::clone(&parser), Arc::clone(&closing));
        let reader = thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !end.load(Ordering::Relaxed) {
                let mut ready = [PollFd::new(source.as_fd(), PollFlags::POLLIN)];
                if poll(&mut ready, PollTimeout::from(20_u8)) == Ok(0) {
                    continue;
                }
                // At the end Linux says EIO.
                let Ok(length @ 1..) = (&*source).read(&mut bytes) else { break };
                screen.lock().unwrap().process(&bytes[..length]);
            }
        });
        Terminal { pty: Some(pty), reader: Some(reader), closing, child, parser }
    }

    /// Closes the window, so to speak.
    pub fn close(&mut self) {
        self.closing.store(true, Ordering::Relaxed);
        self.reader.take().map(JoinHandle::join);
        self.pty = None;
    }

    fn pty(&self) -> &Pty {
        self.pty.as_ref().expect("it is open")
    }

    /// `top` between two looks at the terminal's settings.
    pub fn top(address: SocketAddr) -> Terminal {
        let binary = env!("CARGO_BIN_EXE_prefork-echo");
        Terminal::run(&format!(
            "stty -g; echo; '{binary}' top {address}; echo left with $?; stty -g; echo end"
        ))
    }

    pub fn screen(&self) -> String {
        self.parser.lock().unwrap().screen().contents()
    }

    /// Each cell of the screen with its contents, by rows; a letter that is two columns wide
    /// leaves the second one empty.
    pub fn cells(&self) -> Vec<Vec<vt100::Cell>> {
        let parser = self.parser.lock().unwrap();
        let (rows, columns) = parser.screen().size();
        let cell = |row, column| parser.screen().cell(row, column).cloned();
        (0..rows.get())
            .map(|row| (0..columns.get()).filter_map(|column| cell(row, column)).collect())
            .collect()
    }

    pub fn is_on_other_screen(&self) -> bool {
        self.parser.lock().unwrap().screen().alternate_screen()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let start = Instant::now();
        while !self.screen().contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in\n{}", self.screen());
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn press(&self, keys: &str) {
        self.pty().write_all(keys.as_bytes()).unwrap();
    }

    pub fn resize(&self, rows: u16, columns: u16) {
        let size = size(rows, columns);
        self.parser.lock().unwrap().screen_mut().set_size(size.0, size.1);
        self.pty().resize(Size::new(rows, columns)).unwrap();
    }

    /// The process in it that is no shell.
    pub fn top_pid(&self) -> Pid {
        let shell = Pid::from_raw(self.child.id() as i32);
        let mut found = None;
        wait_until("top runs", || {
            found =
                processes().into_iter().find(|process| process.parent == shell).map(|process| process.pid);
            found.is_some()
        });
        found.unwrap()
    }

    /// The shell may have been stopped with what it runs.
    pub fn continue_shell(&self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGCONT).unwrap();
    }

    /// Waits for the end: it must be as it was before, with this exit status.
    #[track_caller]
    pub fn assert_restored(&mut self, status: i32) -> String {
        self.wait_for("\nend");
        let screen = self.screen();
        assert!(
            !self.is_on_other_screen() && !self.parser.lock().unwrap().screen().hide_cursor(),
            "{screen}"
        );
        let (before, after) =
            screen.split_once("\n\n").unwrap_or_else(|| panic!("no empty line in\n{screen}"));
        let (message, after) =
            after.split_once(&format!("left with {status}\n")).unwrap_or_else(|| panic!("{screen}"));
        assert_eq!(before, after.trim_end_matches("\nend").trim_end_matches('\n'));
        self.child.wait().unwrap();
        message.trim().to_owned()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // An error says that no process is left.
        let _ = killpg(Pid::from_raw(self.child.id() as i32), Signal::SIGKILL);
        self.close();
        let _ = self.child.wait();
    }
}
