//! What the view looks like.

use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::text::Text;

use super::*;
use crate::scoreboard::snapshot::{AcceptQueue, Pool};
use crate::scoreboard::{Event, Served};

const SECOND: Duration = Duration::from_secs(1);

fn worker(slot: usize, state: State, peer: Option<&str>) -> Worker {
    let number = slot as u64;
    let there = state != State::Down;
    Worker {
        slot,
        pid: there.then_some(4243 + slot as i32),
        state,
        restarts: number,
        uptime: there.then_some(SECOND * 245),
        served: Served { connections: 10 + number, bytes: 1280 * (number + 1) },
        private_counter: there.then_some(10 + number),
        peer: peer.map(|peer| peer.parse().unwrap()),
        last_exit: None,
        uid: None,
        sandbox: None,
        careless_counter: there.then_some(0),
        clients: there.then_some(peer.is_some().into()),
        threads: there.then_some(1),
        since: there.then_some(SECOND * (slot as u32 + 3)),
        condition: if slot == 1 { ProcessState::Stopped } else { ProcessState::Alive },
        leaving: state == State::Draining,
    }
}

fn view(workers: Vec<Worker>) -> TopView {
    let served = workers.iter().map(|worker| worker.served).sum();
    let event = |ago: u32, text: &str| Event { time: SECOND * (1000 - ago), text: text.into() };
    TopView {
        snapshot: Snapshot {
            version: "0.1.0".into(),
            address: "127.0.0.1:7777".parse().unwrap(),
            pid: 4242,
            phase: Phase::Running,
            uptime: SECOND * 245,
            model: Model::Process,
            clients_per_worker: 1,
            pool: Pool { min: 5, max: 5 },
            accept_queue: AcceptQueue { length: Some(2), limit: 10 },
            totals: Totals { served, restarts: 6 },
            private_counter: PrivateCounter { address: "0x55d0c8a010e8".into(), parent: 0 },
            workers,
            parent: ProcessState::Alive,
            events: vec![
                event(245, "worker 0 (pid 4243) forked"),
                event(7, "worker 3 (pid 4240) killed by SIGKILL after 3.2s and 5 connections"),
                event(7, "worker 3 (pid 4246) replaces pid 4240, 135.5µs after its death was seen"),
            ],
            taken: SECOND * 1000,
        },
        rate: Some(Rate { connections: 12.4, bytes: 1_234_567.0 }),
        selected: 1,
        paused: false,
        help: false,
        note: None,
        end: None,
    }
}

fn five() -> TopView {
    view(vec![
        worker(0, State::Idle, None),
        worker(1, State::Reading, Some("127.0.0.1:40312")),
        worker(2, State::Writing, Some("[2001:db8:1:2:3:4:5:6]:40313")),
        worker(3, State::Down, None),
        worker(4, State::Draining, Some("127.0.0.1:40314")),
    ])
}

/// What a terminal of this size shows, without the spaces at the ends of lines.
fn shown(view: &TopView, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let lines = view.lines(width.into(), Some(height.into()));
    assert_eq!(lines.len(), usize::from(height));
    terminal.draw(|frame| frame.render_widget(Text::from(lines), frame.area())).unwrap();
    let buffer = terminal.backend().buffer();
    let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
    (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

#[test]
fn at_80_by_24() {
    assert_eq!(
        "\n".to_owned() + &shown(&five(), 80, 24),
        "
 prefork-echo 0.1.0   127.0.0.1:7777   running for 4m05s
 12 connections/s, 1.23M bytes/s; in all 60 connections, 19200 bytes
 clients → accept queue: ●● 2 waiting (backlog 10)
 → one listening socket, shared by all processes: 3 of 4 workers busy
 parent 4242  serves no client; forks the workers, has replaced 6
  │ SLOT     PID STATE      FOR CLIENT            SERVED  BYTES PRIVATE RESTARTS
  ├─   0    4243 idle      3.0s -                     10   1280      10        0
▸ ├─   1    4244 stopped   4.0s 127.0.0.1:40312       11   2560      11        1
  ├─   2    4245 writing   5.0s [2001:db8…]:40313     12   3840      12        2
  ├─   3       - down         - -                     13   5120       -        3
  └─   4    4247 draining  7.0s 127.0.0.1:40314       14   6400      14        4

 One variable, one address (0x55d0c8a010e8), another value in each process:
   clients counted by all, in shared memory: 60
   by each, in its own: parent 0, workers 0=10 1=11 2=12 (4=14)
 Connections by slot: the most are 1.13 times the mean
  ▅▅▅▅▅▅ ▆▆▆▆▆▆ ▇▇▇▇▇▇ ██████
  ██████ ██████ ██████ ██████
    10     11     12     13
 What has happened, and how long ago
 4m05s worker 0 (pid 4243) forked
  7.0s worker 3 (pid 4240) killed by SIGKILL after 3.2s and 5 connections
  7.0s worker 3 (pid 4246) replaces pid 4240, 135.5µs after its death was seen
 q quit  p pause  ↑↓ select  k KILL  t TERM  s STOP  c CONT  +- workers  ? help
"
    );
}

#[test]
fn at_44_by_14() {
    assert_eq!(
        "\n".to_owned() + &shown(&five(), 44, 14),
        "
 prefork-echo 0.1.0   127.0.0.1:7777   runn…
 12 connections/s, 1.23M bytes/s; in all 60…
 clients → accept queue: ●● 2 waiting (back…
 → one listening socket, shared by all proc…
 parent 4242  serves no client; forks the w…
  │ SLOT     PID STATE    SERVED PRIVATE
  ├─   0    4243 idle         10      10
▸ ├─   1    4244 stopped      11      11
  ├─   2    4245 writing      12      12
  ├─   3       - down         13       -
  └─   4    4247 draining     14      14


 q quit  p pause  ↑↓ select  k KILL  t TERM…
"
    );
}

#[test]
fn more_workers_than_rows_scroll() {
    let mut view = view((0..1000).map(|slot| worker(slot, State::Idle, None)).collect());
    view.selected = 500;
    let text = shown(&view, 80, 24);
    assert!(text.contains("\n▸ ├─ 500    4743 idle"), "{text}");
    assert!(text.contains("995 more: the arrows scroll") && text.contains("1.98 times the mean"), "{text}");
    view.selected = 999;
    assert!(shown(&view, 80, 24).contains("\n▸ └─ 999    5242 idle"));
}

#[test]
fn the_last_line_says_what_a_key_has_done_and_how_the_server_ended() {
    let last = |view: &TopView| shown(view, 80, 24).lines().last().unwrap().to_owned();
    let mut view = five();
    assert_eq!(last(&view), KEYS);
    view.note = Some((Instant::now(), "SIGKILL sent".into()));
    assert_eq!(last(&view), " SIGKILL sent");
    view.end = Some("the server is dead".into());
    assert_eq!(last(&view), " the server is dead; press q");
    (view.help, view.paused) = (true, true);
    let text = shown(&view, 80, 24);
    assert!(
        text.contains("PAUSED")
            && text.contains("one process, one client")
            && text.contains("Any key leads back")
    );
}

#[test]
fn the_explanation_fits() {
    assert!(HELP.iter().chain([&KEYS]).all(|line| line.chars().count() <= 80) && HELP.len() <= 22);
}

proptest! {
    #[test]
    fn any_room_will_do(width in 0..200_u16, height in 1..60_u16, workers in 0..50_usize, selected in 0..99_usize) {
        let mut view = view((0..workers).map(|slot| worker(slot, State::Reading, None)).collect());
        view.selected = selected;
        shown(&view, width, height);
        // The selected one is always in sight, if any is.
        let text = shown(&view, 80, height);
        prop_assert!(height < 8 || workers == 0 || text.contains("▸"), "{text}");
    }
}
