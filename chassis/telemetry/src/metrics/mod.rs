//! The metrics of a service, which Prometheus scrapes from its admin port.
//!
//! Each service has a registry of its own, so that several can run in one process. Names follow the
//! conventions of Prometheus: `muse_…`, the unit at the end, `_total` for counters. Label values
//! form a small fixed set and never contain user input.

mod process;

use std::fmt::Display;

pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use prometheus::{
    HistogramOpts, IntGaugeVec, Opts, PullingGauge, Registry, TEXT_FORMAT, TextEncoder, core::Collector,
};
use tracing::error;

use crate::log_output::DROPPED_LINES;
use process::Process;

/// The metrics of one service.
#[derive(Debug, Clone)]
pub struct Metrics(Registry);

impl Metrics {
    /// The media type of [`Metrics::text`].
    pub const FORMAT: &str = TEXT_FORMAT;

    /// The registry of a service, with the metrics of its process and build.
    #[must_use]
    pub fn of(service: &str) -> Self {
        let metrics = Self(Registry::new());
        metrics.register(Process::new());
        metrics.register(DROPPED_LINES.clone());
        #[cfg(tokio_unstable)]
        metrics.register(crate::poll_metrics::POLLS.clone());
        let version = env!("CARGO_PKG_VERSION");
        metrics.info(
            "muse_build_info",
            "Name and version of the service; always 1.",
            &[("service", &service), ("version", &version)],
        );
        metrics
    }

    /// The current values, in the text format of Prometheus.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(failure) = TextEncoder::new().encode_utf8(&self.0.gather(), &mut text) {
            error!(%failure, "cannot write the metrics");
        }
        text
    }

    /// A counter.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.add(IntCounter::new(name, help))
    }

    /// A counter with labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.add(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A gauge.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.add(IntGauge::new(name, help))
    }

    /// A gauge whose value is computed at each scrape.
    pub fn pulled_gauge(&self, name: &str, help: &str, value: impl Fn() -> f64 + Send + Sync + 'static) {
        self.add(PullingGauge::new(name, help, Box::new(value)));
    }

    /// A histogram with these upper bounds of its buckets.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.add(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }

    /// A histogram with labels.
    #[must_use]
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        self.add(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
    }

    /// An info metric: its labels contain the information, its value is 1.
    pub fn info(&self, name: &str, help: &str, labels: &[(&str, &dyn Display)]) {
        let (names, values): (Vec<&str>, Vec<String>) =
            labels.iter().map(|(name, value)| (*name, value.to_string())).unzip();
        self.add(IntGaugeVec::new(Opts::new(name, help), &names)).with_label_values(&values).set(1);
    }

    /// Registers a metric.
    ///
    /// # Panics
    ///
    /// If it is malformed or its name is already registered: both are errors in the program that
    /// appear at each start.
    fn add<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a metric's name, help and labels are well-formed");
        self.register(metric.clone());
        metric
    }

    fn register(&self, metric: impl Collector + 'static) {
        self.0.register(Box::new(metric)).expect("each metric has a name of its own");
    }
}
