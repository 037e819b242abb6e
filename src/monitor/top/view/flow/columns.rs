//! The columns of page 1, as wide as their contents and the terminal let them be: a client,
//! the way to its worker, and what the worker is doing.

use ratatui::text::Span;

use super::draw;
use crate::config::Model;
use crate::language::{fill, tr};
use crate::monitor::format;
use crate::monitor::top::history::Since;
use crate::scoreboard::State;
use crate::scoreboard::snapshot::{Snapshot, Worker};
use crate::sys::poller::WAIT_CALL;
use crate::sys::process::ProcessState;

/// An address of IPv4 with its port.
const WHOLE_CLIENT: usize = 21;

/// So short can a client be: the end of its address, or a number of clients.
const SHORT_CLIENT: usize = 15;

/// So short can the way be: a line, the crossing, and an arrow.
const SHORT_WAY: usize = 6;

/// So wide is a time, with a sign before it.
const TIME: usize = 6;

/// The widths.
#[derive(Debug, Clone, Copy)]
pub(super) struct Columns {
    pub client: usize,
    pub way: usize,
    pub slot: usize,
    pub pid: usize,
    pub call: usize,
    /// Are only the names of the calls shown?
    pub is_short: bool,
    /// What the call waits for; 0: it is not shown.
    pub why: usize,
    /// What the slot has served; 0: it is not shown.
    pub served: usize,
}

impl Columns {
    pub fn new(snapshot: &Snapshot, width: usize) -> Columns {
        let Snapshot { model, workers, .. } = snapshot;
        let longest = |is_short| longest_call(*model, snapshot.clients_per_worker, is_short);
        let pids = workers.iter().filter_map(|worker| worker.pid).map(|pid| pid.to_string().len());
        let pid = pids.max().unwrap_or(1).max(5);
        let slots = workers.iter().map(|worker| worker.slot.to_string().len());
        let slot = slots.max().unwrap_or(1).max(draw::width(tr("worker")));
        let least = 1 + SHORT_CLIENT + 1 + SHORT_WAY;
        let fixed = 3 + slot + 1 + pid + 2 + 1 + TIME;
        // From the widest form to the narrowest, the first that leaves room for the rest.
        let why = longest_why(*model);
        let served = draw::width(tr("served")).max(6);
        let forms = [(false, why, served), (false, why, 0), (false, 0, 0), (true, 0, 0)];
        let needs = |(is_short, why, served): &(bool, usize, usize)| {
            let more = [*why, *served].into_iter().filter(|width| *width > 0).map(|width| width + 2);
            fixed + longest(*is_short) + more.sum::<usize>()
        };
        let form = forms.into_iter().find(|form| needs(form) + least <= width).unwrap_or((true, 0, 0));
        let left = width.saturating_sub(needs(&form)).max(least);
        let room = left - 2 - SHORT_WAY;
        let client = |worker: &Worker| Some(format::client(worker.peer?, worker.via, room).len());
        let clients = workers.iter().filter_map(client);
        let most = if workers.iter().any(|worker| worker.via.is_some()) { room } else { WHOLE_CLIENT };
        let client = clients.max().unwrap_or(0).clamp(SHORT_CLIENT, most.min(room));
        let (is_short, why, served) = form;
        let way = left - 2 - client;
        Columns { client, way, slot, pid, call: longest(is_short), is_short, why, served }
    }

    /// Where in the way the line from the listening socket crosses it.
    pub fn crossing(&self) -> usize {
        (self.way / 2).max(3)
    }

    /// The place of that line, from the left of the terminal.
    pub fn bus_place(&self) -> usize {
        1 + self.client + 1 + self.crossing()
    }

    /// How much is to the left of the box that is the listening socket.
    pub fn before_box(&self) -> usize {
        1 + self.client + 2
    }

    /// The columns from the pid to the time.
    pub fn after_slot(&self) -> usize {
        self.pid + 2 + self.call + 1 + TIME
    }

    /// The headings of what begins after the way; `before` columns are drawn already.
    pub fn headings(&self, before: usize) -> Span<'static> {
        let start = 1 + self.client + 1 + self.way;
        let mut text = " ".repeat(start.saturating_sub(before));
        text += &format!("   {} {}  ", draw::right(tr("worker"), self.slot), draw::right("pid", self.pid));
        text += &draw::left(tr("it is"), self.call);
        text += &format!(" {}", draw::right(tr("for"), TIME));
        if self.why > 0 {
            text += &format!("  {}", draw::left("", self.why));
        }
        if self.served > 0 {
            text += &format!("  {}", draw::right(tr("served"), self.served));
        }
        Span::raw(text)
    }

    /// The worker's part of a line.
    pub fn worker(&self, worker: &Worker, since: Option<Since>, model: Model, most: usize) -> String {
        let pid = worker.pid.map_or("-".into(), |pid| pid.to_string());
        let slot = worker.slot.to_string();
        let call = doing(worker, since, model, self.is_short);
        let time = match since {
            None => String::new(),
            // It has only begun to look.
            Some(Since::AtLeast(time)) if time < ASLEEP => String::new(),
            Some(Since::Exactly(time)) => format::span(time),
            Some(Since::AtLeast(time)) => format!("≥{}", format::span(time)),
        };
        let mut text = format!("{} {}  ", draw::right(&slot, self.slot), draw::right(&pid, self.pid));
        text += &format!("{} {}", draw::left(&call, self.call), draw::right(&time, TIME));
        if self.why > 0 {
            text += &format!("  {}", draw::left(why(worker, model, most), self.why));
        }
        if self.served > 0 {
            text += &format!("  {:>1$}", format::number(worker.served.connections), self.served);
        }
        text
    }
}

/// So long has a call lasted of which it can be said that the process sleeps in it: in a
/// shorter time it may have been called many times.
const ASLEEP: std::time::Duration = std::time::Duration::from_millis(500);

/// Where the worker is: the call, or why it is in none.
fn doing(worker: &Worker, since: Option<Since>, model: Model, is_short: bool) -> String {
    let is_long = since.is_some_and(|since| match since {
        Since::Exactly(time) | Since::AtLeast(time) => time >= ASLEEP,
    });
    let call = |name: &str| match (is_short, is_long) {
        (true, _) => name.to_owned(),
        (false, true) => fill(tr("asleep in {call}"), &[("call", &name)]),
        (false, false) => fill(tr("in {call}"), &[("call", &name)]),
    };
    let text = |short: &str, long: &str| if is_short { short.to_owned() } else { long.to_owned() };
    match (worker.condition, worker.state, model) {
        (ProcessState::Stopped, ..) => text(tr("stopped"), tr("stopped by SIGSTOP")),
        (ProcessState::Dead, ..) => tr("dead").into(),
        (_, State::Down, _) => tr("no process").into(),
        (_, State::Starting, _) => tr("starting").into(),
        (_, State::Draining, _) => text(tr("leaving"), tr("leaving in order")),
        (_, State::Idle | State::Serving, Model::Multiplex) => call(WAIT_CALL),
        (_, State::Idle, _) => call("accept()"),
        (_, State::Reading, _) => call("recv()"),
        (_, State::Writing, _) => call("send()"),
        (_, State::Serving, _) => match worker.clients.unwrap_or(0) {
            _ if is_short => "recv()".into(),
            1 => tr("1 thread in recv()").into(),
            n => fill(tr("{n} threads in recv()"), &[("n", &n)]),
        },
    }
}

/// The widest of what [`doing`] says with this model, so that the columns stand still.
fn longest_call(model: Model, most: usize, is_short: bool) -> usize {
    let name = if model == Model::Multiplex { WAIT_CALL } else { "accept()" };
    let texts = match is_short {
        true => vec![name.to_owned(), tr("no process").into(), tr("stopped").into(), tr("leaving").into()],
        false => vec![
            fill(tr("asleep in {call}"), &[("call", &name)]),
            tr("stopped by SIGSTOP").into(),
            tr("leaving in order").into(),
            match model {
                Model::Thread => fill(tr("{n} threads in recv()"), &[("n", &most)]),
                _ => String::new(),
            },
        ],
    };
    texts.iter().map(|text| draw::width(text)).max().unwrap_or(0).max(draw::width(tr("it is")))
}

/// What ends the call.
fn why(worker: &Worker, model: Model, most: usize) -> &'static str {
    match (worker.state, model) {
        _ if worker.condition != ProcessState::Alive => "",
        (State::Idle, _) => tr("until a client connects"),
        (State::Reading, _) => tr("until its client sends"),
        (State::Writing, _) => tr("until its client reads"),
        (State::Serving, Model::Multiplex) => tr("until any client sends"),
        (State::Serving, _) if worker.clients.unwrap_or(0) < most as u64 => tr("the others in accept()"),
        _ => "",
    }
}

fn longest_why(model: Model) -> usize {
    let other = match model {
        Model::Process => tr("until its client sends"),
        Model::Thread => tr("the others in accept()"),
        Model::Multiplex => tr("until any client sends"),
    };
    draw::width(tr("until a client connects")).max(draw::width(other))
}
