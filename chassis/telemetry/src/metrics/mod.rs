//! The metrics of a service, for Prometheus, which reads them from its admin port.
//!
//! Each service has a registry of its own, so that several can run in one process. Names follow Prometheus'
//! conventions: `muse_…`, the unit at the end, `_total` for what is counted. Counting and observing is atomic; a label's
//! values are few and known beforehand, never what a user sent.

mod process;

use std::fmt::Display;

pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge};
use prometheus::{
    HistogramOpts, IntGaugeVec, Opts, PullingGauge, Registry, TEXT_FORMAT, TextEncoder, core::Collector,
};
use tracing::error;

use crate::logging::DROPPED_LINES;
use process::Process;

/// The metrics of one service.
#[derive(Debug, Clone)]
pub struct Metrics(Registry);

impl Metrics {
    /// The media type of [`Metrics::text`].
    pub const FORMAT: &str = TEXT_FORMAT;

    /// The registry of a service with this name, with what is known of its process and build.
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
            "Which service this is, and of which version; always 1.",
            &[("service", &service), ("version", &version)],
        );
        metrics
    }

    /// All of them as they are now, in Prometheus' text format.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        if let Err(failure) = TextEncoder::new().encode_utf8(&self.0.gather(), &mut text) {
            error!(%failure, "cannot write the metrics");
        }
        text
    }

    /// A number that only grows.
    #[must_use]
    pub fn counter(&self, name: &str, help: &str) -> IntCounter {
        self.added(IntCounter::new(name, help))
    }

    /// Numbers that only grow, by the values of labels.
    #[must_use]
    pub fn counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.added(IntCounterVec::new(Opts::new(name, help), labels))
    }

    /// A number that is set.
    #[must_use]
    pub fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.added(IntGauge::new(name, help))
    }

    /// A number that is asked for at each scrape.
    pub fn pulled_gauge(&self, name: &str, help: &str, value: impl Fn() -> f64 + Send + Sync + 'static) {
        self.added(PullingGauge::new(name, help, Box::new(value)));
    }

    /// How often a value was at most each of `bounds`.
    #[must_use]
    pub fn histogram(&self, name: &str, help: &str, bounds: &[f64]) -> Histogram {
        self.added(Histogram::with_opts(HistogramOpts::new(name, help).buckets(bounds.to_vec())))
    }

    /// The same by the values of labels.
    #[must_use]
    pub fn histograms(&self, name: &str, help: &str, labels: &[&str], bounds: &[f64]) -> HistogramVec {
        self.added(HistogramVec::new(HistogramOpts::new(name, help).buckets(bounds.to_vec()), labels))
    }

    /// Labels that say what there is.
    pub fn info(&self, name: &str, help: &str, labels: &[(&str, &dyn Display)]) {
        let (names, values): (Vec<&str>, Vec<String>) =
            labels.iter().map(|(name, value)| (*name, value.to_string())).unzip();
        self.added(IntGaugeVec::new(Opts::new(name, help), &names)).with_label_values(&values).set(1);
    }

    /// Adds a metric that was made without fault.
    ///
    /// # Panics
    ///
    /// If it was not, or there is one of its name: both are mistakes in the program, and show at each start.
    fn added<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a metric's name, help and labels are well-formed");
        self.register(metric.clone());
        metric
    }

    fn register(&self, metric: impl Collector + 'static) {
        self.0.register(Box::new(metric)).expect("each metric has a name of its own");
    }
}
