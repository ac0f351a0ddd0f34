//! Traces of requests through the services, by OpenTelemetry.
//!
//! A caller's trace continues here and in the services behind by W3C Trace Context (`traceparent`,
//! `tracestate`). Spans are exported over OTLP to a collector, if one is configured. They contain
//! routes, statuses and times, never user input.

mod headers;

use std::{
    borrow::Cow,
    time::{Duration, Instant, SystemTime},
};

use http::HeaderMap;
use opentelemetry::{
    Context, KeyValue,
    propagation::TextMapPropagator,
    trace::{Span, SpanBuilder, SpanKind, TraceContextExt, Tracer, TracerProvider},
};
use opentelemetry_otlp::{SpanExporter, WithTonicConfig};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider, TracerProviderBuilder},
};
use tonic::transport::Channel;
use tracing::warn;

use crate::with_causes;
pub(crate) use headers::unique;
use headers::{HeaderExtractor, HeaderInjector};

/// Timeout of the export of a batch of spans.
pub const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the export of the last spans at the end of a service.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(2);

/// An invalid environment variable `OTEL_EXPORTER_OTLP_…`.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ExporterError(String);

/// The traces of one service.
#[derive(Debug, Clone)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Traces {
    /// Traces without a collector: ids are created and forwarded, but nothing is recorded.
    #[must_use]
    pub fn unrecorded(service: &'static str) -> Self {
        Self::of(provider(service).with_sampler(Sampler::AlwaysOff).build())
    }

    /// Traces that are exported to the collector behind `channel`, within an async runtime.
    /// `ratio`, from 0 to 1, is the sampled fraction of traces that begin here; for others the
    /// `traceparent` of the caller decides.
    ///
    /// # Errors
    ///
    /// If one of the environment variables `OTEL_EXPORTER_OTLP_…` is invalid.
    pub fn recorded(service: &'static str, ratio: f64, channel: Channel) -> Result<Self, ExporterError> {
        let exporter = SpanExporter::builder().with_tonic().with_channel(channel).build();
        let exporter = exporter.map_err(|error| ExporterError(with_causes(&error)))?;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        Ok(Self::of(provider(service).with_sampler(sampler).with_batch_exporter(exporter).build()))
    }

    fn of(provider: SdkTracerProvider) -> Self {
        Self { tracer: provider.tracer("muse"), provider }
    }

    /// The span of a request with these headers.
    pub(crate) fn begin_server(&self, name: Cow<'static, str>, headers: &HeaderMap) -> Context {
        let from =
            TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
        self.begin(name, SpanKind::Server, &from)
    }

    pub(crate) fn begin(&self, name: Cow<'static, str>, kind: SpanKind, from: &Context) -> Context {
        let span = self.tracer.build_with_context(SpanBuilder::from_name(name).with_kind(kind), from);
        from.with_span(span)
    }

    /// Records a span that has ended, as a child of another.
    pub(crate) fn record(&self, name: &'static str, (began, took): (Instant, Duration), within: &Context) {
        let began = SystemTime::now() - began.elapsed();
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_start_time(began);
        self.tracer.build_with_context(span, within).end_with_timestamp(began + took);
    }

    /// Exports the remaining spans, for at most two seconds.
    pub async fn finish(self) {
        let finished = move || self.provider.shutdown_with_timeout(LAST_EXPORT_TIMEOUT);
        if let Ok(Err(failure)) = tokio::task::spawn_blocking(finished).await {
            warn!(%failure, "the last spans were not exported");
        }
    }
}

fn provider(service: &'static str) -> TracerProviderBuilder {
    let about = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION"))]
        .map(|(key, value)| KeyValue::new(key, value));
    SdkTracerProvider::builder().with_resource(Resource::builder().with_attributes(about).build())
}

/// Adds a span to the headers of a call, as the parent of the callee's span.
pub(crate) fn inject(span: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(span, &mut HeaderInjector(headers));
}
