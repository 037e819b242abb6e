//! What the scoreboard costs an echo: the real service, with and without it, in
//! turn, in processor time of the thread that serves. figures.sh runs it.

use std::hint::black_box;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use std::{error, thread};

use nix::time::{ClockId, clock_gettime};
use prefork_echo::echo::{self, BUFFER_SIZE, Connection, WorkerHooks};
use prefork_echo::scoreboard::{RowWriter, Scoreboard, State, Writer};

const ECHOES: u32 = 2_000;
const ROUNDS: usize = 200;

/// As a worker does it; None: without a scoreboard.
struct Counter(Option<RowWriter>);

impl WorkerHooks for Counter {
    fn is_stopping(&self) -> bool {
        false
    }

    fn handle_interrupt(&mut self) {}

    fn before_recv(&mut self) {
        self.0.inspect(|row| row.set_state(State::Reading));
    }

    fn before_answer(&mut self, _: &Connection) {}

    fn before_send(&self, bytes: usize) {
        self.0.inspect(|row| {
            row.set_writing();
            row.before_send(bytes);
        });
    }

    fn after_send(&self, unsent: usize) {
        self.0.inspect(|row| row.after_send(unsent));
    }
}

fn main() -> Result<(), Box<dyn error::Error>> {
    let file = tempfile::tempfile()?;
    file.set_len(Scoreboard::SIZE as u64)?;
    let writer = Writer::map(Some(&file))?;
    let row = writer.row_writer(writer.row(0).ok_or("there is a first row")?);

    let (mut with, mut without) = (Vec::new(), Vec::new());
    for round in 0..2 * ROUNDS {
        // With, without, without, with: to come second is no advantage.
        match round % 4 {
            0 | 3 => with.push(processor_time_of_an_echo(Some(row))?),
            _ => without.push(processor_time_of_an_echo(None)?),
        }
    }
    let (with, without) = (median(with), median(without));
    let start = Instant::now();
    for _ in 0..1_000_000 {
        let mut counter = Counter(Some(black_box(row)));
        counter.before_recv();
        counter.before_send(64);
        counter.after_send(0);
    }
    let alone = start.elapsed().as_nanos() as f64 / 1e6;
    println!(
        "  an echo of 64 bytes: with {with:.0} ns, without {without:.0} ns, ratio {:.3}; its part alone: \
         {alone:.1} ns, {:.3} %",
        with / without,
        alone / without * 100.0
    );
    Ok(())
}

/// In nanoseconds.
fn processor_time_of_an_echo(row: Option<RowWriter>) -> Result<f64, Box<dyn error::Error>> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut asks = TcpStream::connect(listener.local_addr()?)?;
    let (serves, peer) = listener.accept()?;
    asks.set_nodelay(true)?;
    serves.set_nodelay(true)?;
    let mut connection = Connection::new(serves.into(), Some(peer), None);
    let time = thread::scope(|scope| {
        let server = scope.spawn(move || {
            let mut buffer = vec![0; BUFFER_SIZE];
            let _ = echo::echo(&mut connection, &mut buffer, &mut Counter(row));
            clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from)
        });
        let mut message = [7; 64];
        for _ in 0..ECHOES {
            asks.write_all(&message)?;
            asks.read_exact(&mut message)?;
        }
        drop(asks);
        server.join().expect("the service doesn't panic").map_err(std::io::Error::from)
    })?;
    Ok(time.as_nanos() as f64 / f64::from(ECHOES))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
