//! The metrics of a service, for Prometheus, which reads them from its [private port](crate::private).
//!
//! Each service has a registry of its own, so that several can run in one process. Names follow Prometheus'
//! conventions: `muse_…`, the unit at the end, `_total` for what is counted. What is counted or observed is atomic; a
//! label's values are few and known beforehand, never what a user sent.

mod process;

use prometheus::{IntGaugeVec, Opts, Registry, TEXT_FORMAT, TextEncoder, core::Collector};
use tracing::error;

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
        metrics.add(Process::new());
        let build = IntGaugeVec::new(
            Opts::new("muse_build_info", "Which service this is, and of which version; always 1."),
            &["service", "version"],
        );
        let build = metrics.added(build);
        build.with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1);
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

    /// Adds a metric that was made without fault.
    ///
    /// # Panics
    ///
    /// If it was not, or there is one of its name: both are mistakes in the program, and show at each start.
    fn added<M: Collector + Clone + 'static>(&self, metric: prometheus::Result<M>) -> M {
        let metric = metric.expect("a metric's name, help and labels are well-formed");
        self.add(metric.clone());
        metric
    }

    fn add(&self, metric: impl Collector + 'static) {
        self.0.register(Box::new(metric)).expect("each metric has a name of its own");
    }
}
