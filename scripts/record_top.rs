//! Records `top` while clients come, a worker is killed and others are added, and makes a
//! moving picture of it: scripts/top.svg, which the README shows. With a directory as the
//! second argument it also makes still pictures, for slides.
//!
//! ```sh
//! cargo build --release && cargo run --release --example record_top -- scripts/top.svg docs/pictures
//! ```
//!
//! What is seen is what happened: a server, its clients and `top` run in some 22 seconds, with
//! keys pressed at the times below. Each half a second the terminal's cells become a frame of
//! `terminal_svg`. `top` speaks the language of the environment.

mod terminal_svg;

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;
use std::{env, fs, io};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pty_process::Size;
use pty_process::blocking::{self, Pty};
use vt100::Parser;

use self::terminal_svg::{COLUMNS, FRAME, Frame, ROWS, draw};

/// What is done, from which frame on, what the picture says below, and the name of the still
/// picture that is made of the last frame before the next act.
const STORY: [(usize, Act, &str, Option<&str>); 11] = [
    (0, Act::Nothing, "four workers, three clients: each is served by a process of its own", Some("flow")),
    (5, Act::Press("\x1b[B"), "↓ selects a worker", None),
    (7, Act::Press("k"), "k kills it, by SIGKILL", None),
    (9, Act::Nothing, "one client is cut; the parent has replaced the worker", Some("killed")),
    (12, Act::Nothing, "the other clients have noticed nothing", None),
    (16, Act::Clients, "three clients more: two wait in the accept queue, connected already", Some("queue")),
    (22, Act::Press("+"), "+ asks the parent for one worker more", None),
    (25, Act::Press("+"), "and one more: no client waits", None),
    (29, Act::Press("2"), "2: one variable, one address, another value in each process", Some("memory")),
    (36, Act::Press("3"), "3: how the kernel has spread the connections", Some("rates")),
    (42, Act::Nothing, "", None),
];

enum Act {
    Nothing,
    /// In `top`.
    Press(&'static str),
    Clients,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let film = arguments.next().ok_or("usage: record_top FILE [DIRECTORY]")?;
    let stills = arguments.next().map(PathBuf::from);
    // Beside the examples lies what they are examples of.
    let example = env::current_exe()?;
    let program = example.ancestors().nth(2).ok_or("no target directory")?.join("prefork-echo");
    let frames = record(&program)?;
    write(Path::new(&film), &draw(&frames))?;
    let Some(stills) = stills else { return Ok(()) };
    for (index, (_, _, _, name)) in STORY.iter().enumerate() {
        let (Some(name), Some(next)) = (name, STORY.get(index + 1)) else { continue };
        let frame = Frame { caption: "", ..frames[next.0 - 1].clone() };
        write(&stills.join(format!("top-{name}.svg")), &draw(&[frame]))?;
    }
    // One process with eight clients.
    for model in ["thread", "multiplex"] {
        let mut scene = Scene::new(&program, &["--workers", "1", "--model", model, "--clients", "16"])?;
        let silent = (0..8).map(|_| TcpStream::connect(&scene.address));
        let _silent = silent.collect::<Result<Vec<_>, _>>()?;
        let frame = scene.watch(Instant::now() + 6 * FRAME)?;
        write(&stills.join(format!("top-{model}.svg")), &draw(&[frame]))?;
    }
    Ok(())
}

fn write(target: &Path, svg: &str) -> io::Result<()> {
    println!("{}: {} bytes", target.display(), svg.len());
    fs::write(target, svg)
}

/// A process that is told to end when it is dropped.
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id() as i32), Signal::SIGTERM);
        let _ = self.0.wait();
    }
}

/// A server, its clients, and `top` in a terminal.
struct Scene {
    program: PathBuf,
    address: String,
    terminal: Pty,
    screen: Parser,
    // In this order: `top` and the clients end before the server.
    _top: Guarded,
    clients: Vec<Guarded>,
    _server: Guarded,
}

impl Scene {
    fn new(program: &Path, options: &[&str]) -> Result<Scene, Box<dyn Error>> {
        let mut server = Command::new(program);
        server.args(["-q", "--grace", "100ms"]).args(options).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut server = Guarded(server.spawn()?);
        let mut line = String::new();
        BufReader::new(server.0.stdout.as_mut().ok_or("no stdout")?).read_line(&mut line)?;
        let address =
            line.split(' ').nth(2).ok_or("the server doesn't listen: is the port free?")?.to_owned();
        // So that each worker has another number of clients to show.
        bench(program, &address, "--mode connect --connections 2 --messages 90")?.0.wait()?;
        let (terminal, inside) = blocking::open()?;
        terminal.resize(Size::new(ROWS, COLUMNS))?;
        let top = blocking::Command::new(program).args(["top", &address]).env("TERM", "xterm-256color");
        let top = Guarded(top.spawn(inside)?);
        let screen = Parser::new(ROWS.try_into()?, COLUMNS.try_into()?, 0);
        let (program, clients) = (program.to_owned(), Vec::new());
        Ok(Scene { program, address, terminal, screen, _top: top, clients, _server: server })
    }

    fn add_clients(&mut self, options: &str) -> Result<(), Box<dyn Error>> {
        let options = format!("{options} --timeout 40s --duration 40s");
        self.clients.push(bench(&self.program, &self.address, &options)?);
        Ok(())
    }

    /// Takes what the program writes, until `end`, and returns the cells.
    fn watch(&mut self, end: Instant) -> Result<Frame, Box<dyn Error>> {
        let mut bytes = [0; 4096];
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let mut ready = [PollFd::new(self.terminal.as_fd(), PollFlags::POLLIN)];
            if poll(&mut ready, PollTimeout::try_from(left)?)? > 0 {
                let length = self.terminal.read(&mut bytes)?;
                self.screen.process(&bytes[..length]);
            }
        }
        let cell = |row, column| self.screen.screen().cell(row, column).cloned();
        let rows = (0..ROWS).map(|row| (0..COLUMNS).filter_map(|column| cell(row, column)).collect());
        Ok(Frame { rows: rows.collect(), caption: "" })
    }
}

fn bench(program: &Path, address: &str, options: &str) -> Result<Guarded, Box<dyn Error>> {
    let mut bench = Command::new(program);
    bench.args(["bench", address]).args(options.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(Guarded(bench.spawn()?))
}

fn record(program: &Path) -> Result<Vec<Frame>, Box<dyn Error>> {
    const CLIENTS: &str = "--connections 3 --rate 1";
    let mut scene = Scene::new(program, &["--workers", "4"])?;
    scene.add_clients(CLIENTS)?;
    let mut frames: Vec<Frame> = Vec::new();
    let begin = Instant::now() + 4 * FRAME; // until rates can be told
    for pair in STORY.windows(2) {
        let (from, act, caption, _) = &pair[0];
        match act {
            Act::Nothing => {}
            Act::Press(key) => scene.terminal.write_all(key.as_bytes())?,
            Act::Clients => scene.add_clients(CLIENTS)?,
        }
        for frame in *from..pair[1].0 {
            let frame = scene.watch(begin + FRAME * frame as u32)?;
            frames.push(Frame { caption, ..frame });
        }
    }
    Ok(frames)
}
