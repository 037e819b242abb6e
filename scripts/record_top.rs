//! Records `top` while clients come, a worker is killed and others are added, and
//! makes a moving picture of it: scripts/top.svg, which the README shows.
//!
//! ```sh
//! cargo build --release && cargo run --release --example record_top -- scripts/top.svg
//! ```
//!
//! What is seen is what happened: a server, its clients and `top` run in some 18
//! seconds, with keys pressed at the times below. Each half a second the terminal's
//! cells become a frame; the frames are stacked, and a style moves the stack up.

use std::collections::HashMap;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{self, Pty};
use vt100::{Cell, Color, Parser};

const COLUMNS: u16 = 80;
const ROWS: u16 = 28;
const FRAME: Duration = Duration::from_millis(500);

/// What is done, from which frame on, and what the picture says below.
const STORY: [(usize, Act, &str); 9] = [
    (0, Act::Nothing, "four workers, three clients: each is served by a process of its own"),
    (5, Act::Press("\x1b[B"), "↓ selects a worker"),
    (7, Act::Press("k"), "k kills it, by SIGKILL"),
    (9, Act::Nothing, "the parent has replaced it; the others have noticed nothing"),
    (15, Act::Clients, "three clients more: two wait in the accept queue, connected already"),
    (21, Act::Press("+"), "+ asks the parent for one worker more"),
    (25, Act::Press("+"), "and one more: no client waits"),
    (29, Act::Nothing, "one variable, one address, another value in each process"),
    (35, Act::Nothing, ""),
];

enum Act {
    Nothing,
    /// In `top`.
    Press(&'static str),
    Clients,
}

fn main() -> Result<(), Box<dyn Error>> {
    let target = env::args().nth(1).ok_or("usage: record_top FILE")?;
    // Beside the examples lies what they are examples of.
    let example = env::current_exe()?;
    let program = example.ancestors().nth(2).ok_or("no target directory")?.join("prefork-echo");
    let frames = record(&program)?;
    let svg = draw(&frames);
    fs::write(&target, &svg)?;
    println!("{target}: {} frames, {} bytes", frames.len(), svg.len());
    Ok(())
}

/// A process that is told to end when it is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// The terminal's cells, and what the picture says below them.
struct Frame {
    rows: Vec<Vec<Cell>>,
    caption: &'static str,
}

fn record(program: &Path) -> Result<Vec<Frame>, Box<dyn Error>> {
    let server = Command::new(program)
        .args(["-q", "--workers", "4", "--grace", "100ms"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut server = Guarded(server);
    let mut line = String::new();
    BufReader::new(server.0.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
    let address = line.split(' ').nth(2).ok_or("the server doesn't listen: is the port free?")?;
    let bench = |options: &str| {
        let mut bench = Command::new(program);
        bench.args(["bench", address]).args(options.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        bench.spawn().map(Guarded)
    };
    // So that each worker has another number of clients to show.
    bench("--mode connect --connections 2 --messages 90")?.0.wait()?;
    let clients = || bench("--connections 3 --rate 90 --timeout 30s --duration 30s");
    let mut load = vec![clients()?];

    let (mut terminal, inside) = blocking::open()?;
    terminal.resize(Size::new(ROWS, COLUMNS))?;
    let top = blocking::Command::new(program).args(["top", address]).env("TERM", "xterm-256color");
    let _top = Guarded(top.spawn(inside)?);
    let mut screen = Parser::new(ROWS.try_into()?, COLUMNS.try_into()?, 0);
    let mut frames: Vec<Frame> = Vec::new();
    let begin = Instant::now() + 4 * FRAME; // until rates can be told
    for pair in STORY.windows(2) {
        let (from, act, caption) = &pair[0];
        match act {
            Act::Nothing => {}
            Act::Press(key) => terminal.write_all(key.as_bytes())?,
            Act::Clients => load.push(clients()?),
        }
        for frame in *from..pair[1].0 {
            watch(&mut terminal, &mut screen, begin + FRAME * frame as u32)?;
            let cell = |row, column| screen.screen().cell(row, column).cloned();
            let rows = (0..ROWS).map(|row| (0..COLUMNS).filter_map(|column| cell(row, column)).collect());
            frames.push(Frame { rows: rows.collect(), caption });
        }
    }
    Ok(frames)
}

/// Takes what the program writes, until `end`.
fn watch(terminal: &mut Pty, screen: &mut Parser, end: Instant) -> Result<(), Box<dyn Error>> {
    let mut bytes = [0; 4096];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        let mut ready = [PollFd::new(terminal.as_fd(), PollFlags::POLLIN)];
        if poll(&mut ready, PollTimeout::try_from(left)?)? > 0 {
            let length = terminal.read(&mut bytes)?;
            screen.process(&bytes[..length]);
        }
    }
}

// The drawing. Sizes are in the picture's own units: a cell is 8 by 17.
const WIDTH: usize = 8;
const HEIGHT: usize = 17;
const MARGIN: usize = 12;
/// The palette of a terminal: black, red, green, yellow, blue, magenta, cyan, white,
/// and the same brighter.
const PALETTE: [&str; 16] = [
    "#45475a", "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#bac2de", "#7f849c",
    "#f38ba8", "#a6e3a1", "#f9e2af", "#89b4fa", "#f5c2e7", "#94e2d5", "#ffffff",
];
const FOREGROUND: &str = "#cdd6f4";
const BACKGROUND: &str = "#1e1e2e";

fn draw(frames: &[Frame]) -> String {
    let width = usize::from(COLUMNS) * WIDTH + 2 * MARGIN;
    let height = (usize::from(ROWS) + 2) * HEIGHT + 2 * MARGIN;
    let (mut lines, mut stack) = (HashMap::new(), String::new());
    let mut definitions = String::new();
    for (number, frame) in frames.iter().enumerate() {
        let caption = format!(
            "<text x=\"{WIDTH}\" y=\"{}\" fill=\"{}\" font-style=\"italic\">{}</text>",
            (usize::from(ROWS) + 1) * HEIGHT + HEIGHT / 2,
            PALETTE[5],
            escape(frame.caption)
        );
        let _ = write!(stack, "<g transform=\"translate({MARGIN} {})\">{caption}", number * height + MARGIN);
        for (row, cells) in frame.rows.iter().enumerate() {
            let line = draw_line(cells);
            if line.is_empty() {
                continue;
            }
            // What stands in many frames is drawn once.
            let next = lines.len();
            let id = *lines.entry(line).or_insert_with_key(|line| {
                let _ = writeln!(definitions, "<g id=\"l{next}\">{line}</g>");
                next
            });
            let _ = write!(stack, "<use href=\"#l{id}\" y=\"{}\"/>", row * HEIGHT);
        }
        stack.push_str("</g>\n");
    }
    let seconds = frames.len() as f64 * FRAME.as_secs_f64();
    let (number, total) = (frames.len(), frames.len() * height);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\">\n\
         <title>prefork-echo top: a worker is killed and replaced, clients wait in the accept queue, and two \
         workers are added</title>\n\
         <style>text {{ font: 13px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; white-space: pre }}\n\
         .film {{ animation: film {seconds}s steps({number}) infinite }}\n\
         @keyframes film {{ to {{ transform: translateY(-{total}px) }} }}\n\
         @media (prefers-reduced-motion: reduce) {{ .film {{ animation: none }} }}</style>\n\
         <rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>\n\
         <defs>\n{definitions}</defs>\n<g class=\"film\">\n{stack}</g>\n</svg>\n"
    )
}

/// One line of the terminal: a text for each run of cells that look alike.
fn draw_line(cells: &[Cell]) -> String {
    let mut line = String::new();
    let mut column = 0;
    for run in cells.chunk_by(|one, other| look(one) == look(other)) {
        let (ink, paper, bold) = look(&run[0]);
        let (x, length) = (column * WIDTH, run.len() * WIDTH);
        column += run.len();
        if paper != BACKGROUND {
            let _ = write!(line, "<rect x=\"{x}\" width=\"{length}\" height=\"{HEIGHT}\" fill=\"{paper}\"/>");
        }
        let text: String =
            run.iter().map(|cell| if cell.has_contents() { cell.contents() } else { " " }).collect();
        if text.trim().is_empty() {
            continue;
        }
        // Blanks at the end have no ink; those before it have a length.
        let text = text.trim_end();
        let length = text.chars().count() * WIDTH;
        let bold = if bold { " font-weight=\"bold\"" } else { "" };
        let _ = write!(
            line,
            "<text x=\"{x}\" y=\"13\" textLength=\"{length}\" fill=\"{ink}\"{bold}>{}</text>",
            escape(text)
        );
    }
    line
}

/// Ink, paper, and whether it is bold.
fn look(cell: &Cell) -> (String, String, bool) {
    let ink = color(cell.fgcolor(), FOREGROUND);
    let paper = color(cell.bgcolor(), BACKGROUND);
    let ink = if cell.dim() { PALETTE[8].into() } else { ink };
    if cell.inverse() { (paper, ink, cell.bold()) } else { (ink, paper, cell.bold()) }
}

fn color(color: Color, or: &str) -> String {
    match color {
        Color::Default => or.into(),
        Color::Idx(number) => PALETTE.get(usize::from(number)).map_or(or, |color| color).into(),
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
