//! The metrics of the embedder.

use muse_telemetry::metrics::{Histogram, IntCounter, Metrics};

const TOKENIZE_SECONDS: &[f64] =
    &[1e-5, 2.5e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const QUEUE_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
const FORWARD_SECONDS: &[f64] =
    &[0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5];
const BATCH_TOKENS: &[f64] =
    &[8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 384.0, 512.0, 640.0, 1024.0, 2048.0, 4096.0, 8192.0];
const BATCH_FILL: &[f64] = &[0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0];

/// The metrics from text to vectors, counted per request or per pass.
#[derive(Debug, Clone)]
pub struct EmbedderMetrics {
    pub(crate) tokenize: Histogram,
    pub(crate) queue: Histogram,
    pub(crate) passes: PassMetrics,
    pub(crate) rejections: RejectionCounters,
}

/// The metrics of forward passes.
#[derive(Debug, Clone)]
pub(crate) struct PassMetrics {
    pub(crate) seconds: Histogram,
    pub(crate) tokens: Histogram,
    /// Tokens, as a fraction of the maximum.
    pub(crate) fill: Histogram,
    pub(crate) sentences_done: IntCounter,
    pub(crate) tokens_done: IntCounter,
}

/// The counters of requests that were not admitted, by cause.
#[derive(Debug, Clone)]
pub struct RejectionCounters {
    /// Too many tokens are waiting: the label is `room`.
    pub(crate) memory: IntCounter,
    /// The wait would be too long.
    pub(crate) wait: IntCounter,
    /// The deadline would pass before the end.
    pub(crate) deadline: IntCounter,
    /// The model has stopped.
    pub(crate) stopped: IntCounter,
}

impl EmbedderMetrics {
    /// Adds them to the service's metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            tokenize: metrics.histogram(
                "muse_tokenize_duration_seconds",
                "Time to tokenize the sentences of a request, or the items of a stream that arrived together.",
                TOKENIZE_SECONDS,
            ),
            queue: metrics.histogram(
                "muse_queue_duration_seconds",
                "Time from the admission of a request to its first forward pass.",
                QUEUE_SECONDS,
            ),
            passes: PassMetrics::new(metrics),
            rejections: RejectionCounters::new(metrics),
        }
    }
}

impl PassMetrics {
    fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.histogram(
                "muse_forward_duration_seconds",
                "Time of a forward pass.",
                FORWARD_SECONDS,
            ),
            tokens: metrics.histogram("muse_batch_tokens", "Tokens of a forward pass.", BATCH_TOKENS),
            fill: metrics.histogram(
                "muse_batch_fill_ratio",
                "Tokens of a forward pass, as a fraction of the maximum.",
                BATCH_FILL,
            ),
            sentences_done: metrics.counter("muse_sentences_total", "Embedded sentences."),
            tokens_done: metrics.counter("muse_tokens_total", "Tokens of the embedded sentences."),
        }
    }
}

impl RejectionCounters {
    /// Adds them to the service's metrics.
    pub fn new(metrics: &Metrics) -> Self {
        let rejections = metrics.counters(
            "muse_admissions_refused_total",
            "Requests that were not admitted to the queue, by reason: deadline (the request cannot finish before its \
             deadline), wait (it has none and would wait longer than the maximum queueing time), room (too many tokens \
             are waiting), stopped (the model has stopped).",
            &["reason"],
        );
        let counter = |reason| rejections.with_label_values(&[reason]);
        Self {
            memory: counter("room"),
            wait: counter("wait"),
            deadline: counter("deadline"),
            stopped: counter("stopped"),
        }
    }
}
