//! A snapshot in the text format of OpenMetrics, which Prometheus reads: `status --openmetrics`.
//! It is made in the process of `status`: the server opens no port for it, and knows nothing of
//! it.
//!
//! Each series is there in each snapshot, also where it is 0, so that none vanishes; but for the
//! accept queue, where the system does not tell it. There is no metric of the type `info` or
//! `stateset`: node_exporter, which passes the text on, refuses a file with a type that
//! Prometheus's older format does not have.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use crate::scoreboard::snapshot::{Pool, Snapshot, Worker};
use crate::scoreboard::{ExitKind, Phase, State};
use crate::sys::process::ProcessState;

/// The word for a worker that a signal has stopped. It can't say so itself: it is no [`State`].
const STOPPED: &str = "stopped";

/// The whole text, without the last newline.
pub fn text(snapshot: Snapshot) -> String {
    // In each series: the servers of one machine are told apart by it.
    let labels = [("address".into(), snapshot.address.to_string().into())];
    let mut registry = Registry::with_prefix_and_labels("prefork_echo", labels.into_iter());
    registry.register_collector(Box::new(Metrics(snapshot)));
    let mut text = String::new();
    encode(&mut text, &registry).expect("a string takes everything");
    text.trim_end().to_owned()
}

#[derive(Debug)]
struct Metrics(Snapshot);

impl Collector for Metrics {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        let mut out = Output(encoder);
        let Metrics(snapshot) = self;
        let labels = [("version", snapshot.version.as_str()), ("model", snapshot.model.name())];
        out.gauges("info", "Always 1: what the server is", [(labels, 1)])?;
        out.uptime(snapshot)?;
        let draining = u64::from(snapshot.phase != Phase::Running);
        out.gauge("draining", "1 while the server shuts down, else 0", draining)?;
        let served = snapshot.totals.served;
        out.counter("connections", "Connections accepted", None, served.connections)?;
        out.counter("echoed", "Bytes sent back", Some(&Unit::Bytes), served.bytes)?;
        let help = "Connections closed because their PROXY header was missing or wrong";
        out.counter("bad_headers", help, None, served.bad_headers)?;
        out.restarts(snapshot)?;
        out.gauge("clients", "Clients that are being served", snapshot.clients())?;
        let each = snapshot.clients_per_worker as u64;
        out.gauge("clients_per_worker", "Clients that one worker can serve at once", each)?;
        out.workers(snapshot)?;
        let Pool { min, max, now } = snapshot.pool;
        out.gauge("pool_min", "The least workers that there should be", min as u64)?;
        out.gauge("pool_max", "The most workers that there may be", max as u64)?;
        out.gauge("pool_now", "Workers that there should be now", now as u64)?;
        if let Some(length) = snapshot.accept_queue.length {
            let limit = snapshot.accept_queue.limit;
            out.gauge("accept_queue_length", "Connections that wait to be accepted", length)?;
            out.gauge("accept_queue_limit", "Connections that can wait to be accepted", limit)?;
        }
        Ok(())
    }
}

/// Where the metrics are written to.
struct Output<'a>(DescriptorEncoder<'a>);

impl Output<'_> {
    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        ConstCounter::new(value).encode(self.0.encode_descriptor(name, help, unit, MetricType::Counter)?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        ConstGauge::new(value).encode(self.0.encode_descriptor(name, help, None, MetricType::Gauge)?)
    }

    /// A gauge for each set of labels.
    fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = ([(&'a str, &'a str); N], u64)>,
    ) -> fmt::Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        let each = |(labels, value)| ConstGauge::new(value).encode(family.encode_family(&labels)?);
        values.into_iter().try_for_each(each)
    }

    fn uptime(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let help = "Time since the server has started";
        let metric = self.0.encode_descriptor("uptime", help, Some(&Unit::Seconds), MetricType::Gauge)?;
        ConstGauge::new(snapshot.uptime.as_millis() as f64 / 1_000.0).encode(metric)
    }

    fn restarts(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let help = "Workers that have replaced another, by how that one ended";
        let mut family = self.0.encode_descriptor("restarts", help, None, MetricType::Counter)?;
        for (cause, number) in ExitKind::ALL.into_iter().zip(snapshot.totals.by_cause) {
            let labels = [("cause", cause.name())];
            ConstCounter::new(number).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn workers(&mut self, snapshot: &Snapshot) -> fmt::Result {
        let state = |worker: &Worker| match worker.condition {
            ProcessState::Stopped => STOPPED,
            _ => worker.state.name(),
        };
        let states = State::ALL.map(State::name).into_iter().chain([STOPPED]);
        let number = |name| snapshot.workers.iter().filter(|worker| state(worker) == name).count() as u64;
        let help = "Workers by what they do, and slots without one (down)";
        self.gauges("workers", help, states.map(|name| ([("state", name)], number(name))))
    }
}
