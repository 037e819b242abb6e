//! What the pages show; `pages` has some of them as they are.

mod pages;

use std::time::Duration;

use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::text::Text;

use super::*;
use crate::config::Model;
use crate::language::tests::in_korean;
use crate::monitor::top::history::{Rate, Since};
use crate::scoreboard::snapshot::{AcceptQueue, Pool, PrivateCounter, Totals, Worker};
use crate::scoreboard::{Event, Served, State};
use crate::sys::process::ProcessState;

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
        served: Served { connections: 10 + number, bytes: 1280 * (number + 1), bad_headers: 0 },
        private_counter: there.then_some(10 + number),
        peer: peer.map(|peer| peer.parse().unwrap()),
        via: None,
        last_exit: None,
        uid: None,
        sandbox: None,
        careless_counter: there.then_some(0),
        clients: there.then_some(peer.is_some().into()),
        threads: there.then_some(1),
        since: there.then_some(SECOND * (slot as u32 + 3)),
        condition: if slot == 5 { ProcessState::Stopped } else { ProcessState::Alive },
        leaving: false,
    }
}

fn view(workers: Vec<Worker>) -> TopView {
    let served = workers.iter().map(|worker| worker.served).sum();
    let event = |ago: u32, text: &str| Event { time: SECOND * (1000 - ago), text: text.into() };
    let rate = |connections: f64| Rate { connections, bytes: connections * 100_000.0 };
    TopView {
        snapshot: Snapshot {
            version: "0.1.0".into(),
            address: "127.0.0.1:7777".parse().unwrap(),
            pid: 4242,
            phase: Phase::Running,
            uptime: SECOND * 245,
            model: Model::Process,
            clients_per_worker: 1,
            pool: Pool { min: 5, max: 5, now: 5 },
            accept_queue: AcceptQueue { length: Some(2), limit: 10 },
            totals: Totals { served, restarts: 6, by_cause: [0, 6, 0] },
            private_counter: PrivateCounter { address: "0x55d0c8a010e8".into(), parent: 0 },
            workers,
            parent: ProcessState::Alive,
            events: vec![
                event(245, "8 workers forked"),
                event(7, "worker 1 (pid 4230) killed by SIGKILL after 3.2s and 5 connections"),
                event(7, "worker 1 (pid 4244) replaces pid 4230, 135.5µs after its death was seen"),
            ],
            taken: SECOND * 1000,
        },
        history: History::of_rates([3.0, 7.0, 12.4].map(rate)),
        page: Page::Flow,
        selected: 1,
        paused: false,
        help: false,
        ascii: false,
        note: None,
        end: None,
    }
}

/// Each state of a worker.
fn eight() -> TopView {
    view(vec![
        worker(0, State::Idle, None),
        worker(1, State::Reading, Some("127.0.0.1:40312")),
        worker(2, State::Writing, Some("[2001:db8:1:2:3:4:5:6]:40313")),
        worker(3, State::Idle, None),
        worker(4, State::Draining, Some("127.0.0.1:40314")),
        worker(5, State::Reading, Some("127.0.0.1:40315")),
        worker(6, State::Down, None),
        worker(7, State::Starting, None),
    ])
}

/// Two processes with several clients each.
fn several(model: Model) -> TopView {
    let with = |slot, clients| Worker {
        clients: Some(clients),
        threads: Some(model.threads(16)),
        ..worker(slot, State::Serving, None)
    };
    let mut view = view(vec![with(0, 8), with(1, 2)]);
    (view.snapshot.model, view.snapshot.clients_per_worker) = (model, 16);
    view
}

/// What a terminal of this size shows, without the spaces at the ends of lines.
fn shown(view: &TopView, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let lines = view.lines(width.into(), height.into());
    assert_eq!(lines.len(), usize::from(height));
    for line in &lines {
        assert!(line.width() <= width.into(), "{line}");
    }
    terminal.draw(|frame| frame.render_widget(Text::from(lines), frame.area())).unwrap();
    let buffer = terminal.backend().buffer();
    // A letter that is two columns wide leaves the second one empty.
    let row = |y| {
        let mut row = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer[(x, y)].symbol();
            row += symbol;
            x += draw::width(symbol).max(1) as u16;
        }
        row
    };
    (0..height).map(|y| row(y).trim_end().to_owned() + "\n").collect()
}

#[test]
fn a_death_is_in_sight_for_three_seconds_whole_at_each_width() {
    let mut view = eight();
    assert!(!shown(&view, 80, 24).contains('✗'));
    let killed = ", its client 127.0.0.1:40311 is cut off";
    view.snapshot.events[1].text += killed;
    for event in &mut view.snapshot.events[1..] {
        event.time = view.snapshot.taken - SECOND * 2;
    }
    let line = "\n ✗ 1 client cut         pid 4230 killed by SIGKILL, replaced in 135.5µs\n";
    assert!(shown(&view, 80, 24).contains(line), "{}", shown(&view, 80, 24));
    let lines = "\n ✗ 1 client cut: pid 4230 killed by SIGKILL, replaced in\n 135.5µs\n";
    assert!(shown(&view, 60, 20).contains(lines), "{}", shown(&view, 60, 20));
}

#[test]
fn a_client_is_shown_with_its_balancer_where_both_have_room() {
    let mut view = eight();
    for slot in [1, 5] {
        view.snapshot.workers[slot].via = Some("127.0.0.2:51000".parse().unwrap());
    }
    let both = |text: &str| text.matches(" via 127.0.0.2:51000 ═").count();
    assert_eq!(both(&shown(&view, 130, 24)), 2, "{}", shown(&view, 130, 24));
    let text = shown(&view, 80, 24);
    assert!(both(&text) == 0 && text.contains(" 127.0.0.1:40312 ═"), "{text}");
}

#[test]
fn the_lines_of_several_clients_lead_to_one_thread_or_to_several() {
    let text = shown(&several(Model::Thread), 80, 24);
    for line in
        ["8 threads in recv()", "8 clients, 17 threads", "2 threads in recv()", "● client ═══════════╦"]
    {
        assert!(text.contains(line), "no {line} in {text}");
    }
    let mut view = several(Model::Multiplex);
    view.snapshot.workers[0].clients = Some(16);
    view.snapshot.workers[1].clients = Some(16);
    // A worker that is full waits for its clients alone.
    let text = shown(&view, 80, 24);
    assert!(!text.contains('╪') && text.contains("No worker is in accept()"), "{text}");
}

#[test]
fn since_when_is_observed_where_the_scoreboard_does_not_tell() {
    let mut snapshot = several(Model::Multiplex).snapshot;
    snapshot.workers.push(worker(2, State::Idle, None));
    let mut history = History::default();
    history.add(&snapshot);
    let since = |history: &History, snapshot: &Snapshot| {
        snapshot.workers.iter().map(|worker| history.since(worker).unwrap()).collect::<Vec<_>>()
    };
    let first = since(&history, &snapshot);
    assert!(matches!(first[..], [Since::AtLeast(_), Since::AtLeast(_), Since::Exactly(_)]), "{first:?}");
    assert_eq!(first[2], Since::Exactly(SECOND * 5), "an idle worker says it itself");
    snapshot.workers[0].served.bytes += 1;
    history.add(&snapshot);
    let second = since(&history, &snapshot);
    assert!(matches!(second[..2], [Since::Exactly(_), Since::AtLeast(_)]), "{second:?}");
}

#[test]
fn more_workers_than_rows_scroll() {
    let mut view = view((0..1000).map(|slot| worker(slot, State::Idle, None)).collect());
    for page in [Page::Flow, Page::Memory] {
        (view.page, view.selected) = (page, 500);
        let text = shown(&view, 80, 24);
        assert!(text.contains('▸') && text.contains(" 4743 "), "{text}");
        assert!(text.contains(" more: the arrow keys scroll"), "{text}");
        view.selected = 999;
        assert!(shown(&view, 80, 24).contains(" 5242 "));
    }
    view.page = Page::Rates;
    assert!(shown(&view, 80, 24).contains("workers 0 to "));
}

#[test]
fn the_last_line_says_what_a_key_has_done_and_how_the_server_ended() {
    let last = |view: &TopView| shown(view, 80, 24).lines().last().unwrap().to_owned();
    let mut view = eight();
    assert!(last(&view).starts_with(" q quit  ? help  Tab page  ↑↓ select  k KILL"));
    view.note = Some((Instant::now(), "SIGKILL sent".into()));
    assert_eq!(last(&view), " SIGKILL sent");
    view.end = Some("the server is dead".into());
    assert_eq!(last(&view), " the server is dead; press q");
    let text = shown(&view, 80, 24);
    assert!(text.contains("ENDED") && text.contains("gone") && !text.contains("accept()"), "{text}");
    let view = TopView { help: true, paused: true, ..eight() };
    let text = shown(&view, 80, 24);
    assert!(text.contains("PAUSED") && text.contains("leave; the server goes on"), "{text}");
    assert_eq!(last(&view), " Any key leads back.");
}

#[test]
fn nothing_is_cut_at_60_by_20_in_english_or_korean() {
    let check = || {
        for mut view in [eight(), several(Model::Thread), several(Model::Multiplex)] {
            // The end of the address of IPv6, on purpose; and events are as long as they are.
            view.snapshot.workers.retain(|worker| worker.slot != 2);
            view.snapshot.events.truncate(1);
            for (page, help) in
                [(Page::Flow, false), (Page::Memory, false), (Page::Rates, false), (Page::Flow, true)]
            {
                let text = shown(&TopView { page, help, ..view.clone() }, 60, 20);
                assert!(!text.contains('…'), "{text}");
            }
        }
    };
    check();
    in_korean(check);
}

#[test]
fn ascii_has_the_same_columns() {
    for page in Page::ALL {
        let drawn = TopView { page, ..eight() };
        let ascii = shown(&TopView { ascii: true, ..drawn.clone() }, 80, 24);
        assert!(ascii.is_ascii(), "{ascii}");
        let widths = |text: &str| text.lines().map(|line| line.chars().count()).collect::<Vec<_>>();
        assert_eq!(widths(&ascii), widths(&shown(&drawn, 80, 24)));
    }
}

proptest! {
    #[test]
    fn any_room_will_do(
        width in 0..200_u16, height in 2..60_u16, workers in 0..50_usize, selected in 0..99_usize,
        clients in 0..99_u64, page in 0..3_usize, korean: bool,
    ) {
        let mut view = view((0..workers).map(|slot| worker(slot, State::Reading, None)).collect());
        (view.selected, view.page) = (selected.min(workers.saturating_sub(1)), Page::ALL[page]);
        view.snapshot.model = [Model::Process, Model::Thread, Model::Multiplex][clients as usize % 3];
        for worker in &mut view.snapshot.workers {
            worker.clients = Some(clients);
        }
        let show = || {
            shown(&view, width, height);
            shown(&view, 80, height)
        };
        let text = if korean { in_korean(show) } else { show() };
        // The selected one is always in sight, if any is.
        prop_assert!(height < 8 || workers == 0 || page == 2 || text.contains("▸"), "{text}");
    }
}
