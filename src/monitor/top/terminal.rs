//! The terminal while `top` runs. It is restored at the end, also after a signal or a
//! panic.
//!
//! Keys are read by select(2) and read(2). The library's own reader waits for the rest of a
//! sequence that never comes, and loops when the terminal is gone; in both cases it ignores
//! signals.

use std::io::{self, Stdout, stdin, stdout};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;
use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::select::{FdSet, select};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::time::{TimeVal, TimeValLike};
use nix::unistd::{self, Pid};
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::text::{Line, Text};
use ratatui::{Frame, Terminal};

/// Signals that end the program.
const ENDS: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP];

/// Signals after which the terminal is set up or drawn anew.
const REDRAWS: [Signal; 3] = [Signal::SIGTSTP, Signal::SIGCONT, Signal::SIGWINCH];

/// The terminal in raw mode, on its alternate screen. Drop restores it, and so does a
/// panic.
#[derive(Debug)]
pub struct Screen {
    /// Never dropped: its own drop prints an error if the terminal is gone. [`leave`] does
    /// what it would do.
    terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
    /// The last signal that has come; 0 is none.
    signal: Arc<AtomicUsize>,
}

/// What the user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A key that stands for itself.
    Key(char),
    /// Up by so many, or down.
    Move(isize),
    /// The escape key, or Ctrl-C.
    Escape,
    /// A signal that ends the program: the terminal has to be left before.
    End(Signal),
}

impl Screen {
    /// Takes the terminal.
    ///
    /// # Errors
    /// If stdin and stdout are none.
    pub fn enter() -> io::Result<Screen> {
        let signal = Arc::new(AtomicUsize::new(0));
        let ending = Arc::new(AtomicBool::new(false));
        for number in ENDS.map(|signal| signal as i32) {
            // The second one ends it where it is: it may hang in a write.
            signal_hook::flag::register_conditional_default(number, Arc::clone(&ending))?;
            signal_hook::flag::register(number, Arc::clone(&ending))?;
        }
        for number in ENDS.into_iter().chain(REDRAWS).map(|signal| signal as i32) {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        // A panic leaves the alternate screen before it prints its message.
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            let _ = leave();
            print(panic);
        }));
        Ok(Screen { terminal: take()?, signal })
    }

    /// Shows the lines that are made for its width and height.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn show(&mut self, lines: impl FnOnce(usize, usize) -> Vec<Line<'static>>) -> io::Result<()> {
        let draw = |frame: &mut Frame| {
            let area = frame.area();
            frame.render_widget(Text::from(lines(area.width.into(), area.height.into())), area);
        };
        self.terminal.draw(draw).map(drop)
    }

    /// Waits for the user, until `deadline` at the latest. Nothing: the view is
    /// to be drawn again.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn wait(&mut self, deadline: Instant) -> io::Result<Vec<Input>> {
        let input = stdin();
        let left = deadline.saturating_duration_since(Instant::now());
        let mut left = TimeVal::microseconds(left.as_micros() as i64);
        let mut source = FdSet::new();
        source.insert(input.as_fd());
        // Not poll: on macOS it doesn't wait for terminals.
        let ready = match select(None, &mut source, None, None, &mut left) {
            Ok(ready) => ready > 0,
            Err(Errno::EINTR) => false,
            Err(error) => return Err(error.into()),
        };
        match Signal::try_from(self.signal.swap(0, Ordering::Relaxed) as i32) {
            Ok(Signal::SIGTSTP) => {
                leave()?;
                raise(Signal::SIGSTOP)?;
            }
            // The shell has changed the terminal while this process was stopped.
            Ok(Signal::SIGCONT) => {
                leave()?;
                self.terminal = take()?;
            }
            Ok(signal) if ENDS.contains(&signal) => return Ok(vec![Input::End(signal)]),
            _ => {}
        }
        if !ready {
            return Ok(Vec::new());
        }
        let mut bytes = [0; 256];
        match unistd::read(input.as_fd(), &mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => keys(&bytes[..length]),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // The panic hook has done it. A second time would move the cursor back, and the
        // next output would overwrite the message.
        if !thread::panicking() {
            // If the terminal is gone, there is nothing to be restored.
            let _ = leave();
        }
    }
}

fn take() -> io::Result<ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>> {
    enable_raw_mode()?;
    execute!(stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide)?;
    Terminal::new(CrosstermBackend::new(stdout())).map(ManuallyDrop::new)
}

fn leave() -> io::Result<()> {
    let raw = disable_raw_mode();
    execute!(stdout(), LeaveAlternateScreen, Show)?;
    raw
}

/// What these bytes mean, where they are keys of `top`. Of a sequence that came in parts,
/// the rest is lost. See console_codes(4); the arrows differ by the terminal's mode.
fn keys(mut bytes: &[u8]) -> io::Result<Vec<Input>> {
    const SEQUENCES: [(&[u8], Input); 12] = [
        (b"\x1b[A", Input::Move(-1)),
        (b"\x1bOA", Input::Move(-1)),
        (b"\x1b[B", Input::Move(1)),
        (b"\x1bOB", Input::Move(1)),
        (b"\x1b[5~", Input::Move(-10)),
        (b"\x1b[6~", Input::Move(10)),
        (b"\x1b[H", Input::Move(isize::MIN)),
        (b"\x1b[1~", Input::Move(isize::MIN)),
        (b"\x1bOH", Input::Move(isize::MIN)),
        (b"\x1b[F", Input::Move(isize::MAX)),
        (b"\x1b[4~", Input::Move(isize::MAX)),
        (b"\x1bOF", Input::Move(isize::MAX)),
    ];
    let mut inputs = Vec::new();
    while let Some(first) = bytes.first() {
        if let Some((sequence, input)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            inputs.push(*input);
            bytes = &bytes[sequence.len()..];
            continue;
        }
        match first {
            b'\x1b' if bytes.len() > 1 => break, // No key of top.
            b'\x1b' | b'\x03' => inputs.push(Input::Escape),
            // Ctrl-Z stops the whole process group, as the terminal would.
            b'\x1a' => kill(Pid::from_raw(0), Signal::SIGTSTP)?,
            byte => inputs.push(Input::Key(char::from(*byte))),
        }
        bytes = &bytes[1..];
    }
    Ok(inputs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_the_sequences_of_others() {
        let keys = |bytes: &[u8]| keys(bytes).unwrap();
        assert_eq!(keys(b"k\x1b[Bq"), [Input::Key('k'), Input::Move(1), Input::Key('q')]);
        assert_eq!(keys(b"\x1b"), [Input::Escape]);
        assert_eq!(keys(b"\x03"), [Input::Escape]);
        // A function key, a key with Alt, and half of a sequence.
        for other in [b"\x1b[15~".as_slice(), b"\x1bk", b"\x1b[", b"\x1bO", b"\x1b[200~"] {
            assert_eq!(keys(other), []);
        }
        assert!(keys(b"\xff\xc3").iter().all(|input| matches!(input, Input::Key(_))));
    }
}
