//! The terminal, for as long as `top` has it: left as it was found, however that
//! ends.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, raise};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType};
use ratatui::text::{Line, Text};

/// Signals that end the program, or stop it for a while.
const SIGNALS: [Signal; 5] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP, Signal::SIGTSTP];

/// The terminal in raw mode, on its other screen. Dropped, it is as before; also
/// by a panic.
#[derive(Debug)]
pub struct Screen {
    terminal: DefaultTerminal,
    /// The last signal that has come; 0 is none.
    signal: Arc<AtomicUsize>,
}

/// What the user does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A key.
    Key(KeyCode),
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
        for number in SIGNALS.map(|signal| signal as i32) {
            signal_hook::flag::register_usize(number, Arc::clone(&signal), number as usize)?;
        }
        // It also has a panic leave the terminal before it speaks.
        Ok(Screen { terminal: ratatui::try_init()?, signal })
    }

    /// Width and height in characters.
    pub fn size(&self) -> (usize, usize) {
        let size = self.terminal.size().unwrap_or_default();
        (size.width.into(), size.height.into())
    }

    /// Shows these lines.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn show(&mut self, lines: Vec<Line<'static>>) -> io::Result<()> {
        self.terminal.draw(|frame| frame.render_widget(Text::from(lines), frame.area())).map(drop)
    }

    /// Waits for the user, for `limit` at the most. None: the picture is to be
    /// drawn again.
    ///
    /// # Errors
    /// If the terminal is gone.
    pub fn wait(&mut self, limit: Duration) -> io::Result<Option<Input>> {
        // In steps, since a signal doesn't end the wait.
        const STEP: Duration = Duration::from_millis(50);
        let end = Instant::now() + limit;
        loop {
            match Signal::try_from(self.signal.swap(0, Ordering::Relaxed) as i32) {
                Ok(Signal::SIGTSTP) => return self.suspend().map(|()| None),
                Ok(signal) => return Ok(Some(Input::End(signal))),
                Err(_) => {}
            }
            let left = end.saturating_duration_since(Instant::now());
            if !event::poll(left.min(STEP))? {
                if left.is_zero() {
                    return Ok(None);
                }
                continue;
            }
            match event::read()? {
                Event::Key(KeyEvent { code, modifiers, kind: KeyEventKind::Press, .. }) => {
                    // In raw mode these are keys like others.
                    match code {
                        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
                            return Ok(Some(Input::Key(KeyCode::Esc)));
                        }
                        KeyCode::Char('z') if modifiers.contains(KeyModifiers::CONTROL) => {
                            return self.suspend().map(|()| None);
                        }
                        _ => return Ok(Some(Input::Key(code))),
                    }
                }
                Event::Resize(..) => return Ok(None),
                _ => {}
            }
        }
    }

    /// Gives the terminal back until the shell continues us.
    fn suspend(&mut self) -> io::Result<()> {
        ratatui::try_restore()?;
        raise(Signal::SIGSTOP)?;
        self.terminal = ratatui::try_init()?;
        execute!(io::stdout(), Clear(ClearType::All))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A panic has done it before it spoke; again, and the cursor would jump back
        // to where it was, and what comes next be written over the message.
        if !thread::panicking() {
            // If the terminal is gone, there is nothing to be restored.
            let _ = ratatui::try_restore();
        }
    }
}
