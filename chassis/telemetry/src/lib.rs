//! Telemetry of the services: logs on standard error, metrics for Prometheus, traces for
//! OpenTelemetry, and request telemetry, which produces all three for each request.

#![forbid(unsafe_code)]

mod causes;
mod log_output;
pub mod log_throttle;
mod log_writer;
mod logging;
pub mod metrics;
mod panic_hook;
#[cfg(tokio_unstable)]
mod poll_metrics;
pub mod request_telemetry;
pub mod trace;

pub use causes::{followed_by_causes, with_causes};
pub use log_output::{flush_brief, flush_log, print_to_operator};
pub use logging::{LogArgs, LogFormat};
#[cfg(tokio_unstable)]
pub use poll_metrics::observe as observe_polls;
