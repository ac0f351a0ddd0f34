//! Options of traces, with the environment variables of OpenTelemetry's specification.

use clap::Args;
use muse_telemetry::trace::{EXPORT_TIMEOUT, Traces};
use tonic::transport::Endpoint;
use tracing::info;

use crate::{
    ConfigError, grpc,
    tls::{Connector, check_scheme},
};

/// The collector and the sampling of traces.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of traces")]
pub struct TraceArgs {
    /// URL of an OpenTelemetry collector with OTLP over gRPC (http://127.0.0.1:4317). With https://
    /// MUSE_TLS_CA must have signed its certificate. Without a collector trace ids are propagated,
    /// but no span is recorded.
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_parser = grpc::endpoint, global = true)]
    pub collector: Option<Endpoint>,
    /// Fraction of traces that are recorded, from 0 to 1. For traces started by a caller its
    /// `traceparent` decides.
    #[arg(long = "trace-ratio", env = "OTEL_TRACES_SAMPLER_ARG", default_value = "1", global = true)]
    #[arg(value_parser = ratio)]
    pub ratio: f64,
}

impl Default for TraceArgs {
    fn default() -> Self {
        Self { collector: None, ratio: 1.0 }
    }
}

impl TraceArgs {
    /// Starts the traces of a service, within an async runtime.
    ///
    /// # Errors
    ///
    /// If one of the environment variables `OTEL_EXPORTER_OTLP_…` is invalid.
    pub(crate) fn start(&self, service: &'static str, connector: &Connector) -> Result<Traces, ConfigError> {
        let Some(collector) = &self.collector else { return Ok(Traces::unrecorded(service)) };
        let channel = grpc::channel(&collector.clone().timeout(EXPORT_TIMEOUT), connector);
        let traces = Traces::recorded(service, self.ratio, channel)
            .map_err(|invalid| ConfigError::new("OTEL_EXPORTER_OTLP_…", invalid.to_string()))?;
        info!(collector = %collector.uri(), ratio = self.ratio, "traces are recorded");
        Ok(traces)
    }

    /// Checks the scheme of the collector's URL.
    ///
    /// # Errors
    ///
    /// If the URL requires TLS and no certificate is configured.
    pub fn check(&self, has_tls: bool) -> Result<(), ConfigError> {
        self.collector
            .as_ref()
            .map_or(Ok(()), |collector| check_scheme("--otlp-endpoint", collector.uri(), has_tls))
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("must lie between 0 and 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_has_a_url_that_can_be_reached() {
        let check = |text: &str, has_tls| {
            let collector = Some(grpc::endpoint(text)?);
            TraceArgs { collector, ratio: 1.0 }.check(has_tls).map_err(|refused| refused.to_string())
        };
        for (text, has_tls) in [("http://10.0.0.1:4317", false), ("https://c:4317", true)] {
            assert_eq!(check(text, has_tls), Ok(()), "{text}");
        }
        for text in ["", "collector", "ftp://collector", "http://", "https://collector:4317", "/x", " "] {
            assert!(check(text, false).is_err(), "{text}");
        }
    }

    #[test]
    fn a_ratio_lies_between_nothing_and_all() {
        assert_eq!((ratio("0"), ratio("0.25"), ratio("1")), (Ok(0.0), Ok(0.25), Ok(1.0)));
        for text in ["-0.1", "1.1", "NaN", "inf", "", "x"] {
            assert!(ratio(text).is_err(), "{text}");
        }
    }
}
