//! Traces of requests through the services, by OpenTelemetry.
//!
//! A caller's trace goes on from here and to the services behind by W3C Trace Context (`traceparent`, `tracestate`). What a
//! service measured goes over OTLP to a collector, if one is named. Spans hold routes, statuses and times, never what a user
//! sent.

mod headers;
mod options;
mod outgoing;

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
    trace::{Sampler, SdkTracer, SdkTracerProvider},
};
use tracing::{info, warn};

use crate::{ConfigError, grpc, tls::Connector, with_causes};
pub(crate) use headers::unique;
use headers::{Incoming, Onward};
pub use options::{Collector, TraceArgs};
pub use outgoing::Outgoing;

/// How long the collector may take for a batch of spans.
const EXPORT_WITHIN: Duration = Duration::from_secs(10);
/// How long a service that ends waits for the collector to take its last spans.
const LAST_EXPORT_WITHIN: Duration = Duration::from_secs(2);

/// The traces of one service.
#[derive(Debug, Clone)]
pub struct Traces {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

impl Traces {
    /// Traces of the service with this name, within an async runtime. Without a collector ids are made and handed on, but
    /// nothing is recorded.
    ///
    /// # Errors
    ///
    /// If one of the environment variables `OTEL_EXPORTER_OTLP_…` cannot be.
    pub fn new(service: &'static str, args: &TraceArgs, connector: &Connector) -> Result<Self, ConfigError> {
        let about = [("service.name", service), ("service.version", env!("CARGO_PKG_VERSION"))]
            .map(|(key, value)| KeyValue::new(key, value));
        let provider =
            SdkTracerProvider::builder().with_resource(Resource::builder().with_attributes(about).build());
        let Some(collector) = args.collector.endpoint() else {
            return Ok(Self::of(provider.with_sampler(Sampler::AlwaysOff).build()));
        };
        let exporter = SpanExporter::builder()
            .with_tonic()
            .with_channel(grpc::channel(&collector.clone().timeout(EXPORT_WITHIN), connector))
            .build()
            .map_err(|refused| ConfigError::new("OTEL_EXPORTER_OTLP_…", with_causes(&refused)))?;
        info!(collector = %collector.uri(), ratio = args.ratio, "traces are recorded");
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(args.ratio)));
        Ok(Self::of(provider.with_sampler(sampler).with_batch_exporter(exporter).build()))
    }

    fn of(provider: SdkTracerProvider) -> Self {
        Self { tracer: provider.tracer("muse"), provider }
    }

    /// A span of what a caller asks for whose request has these headers.
    pub(crate) fn serve(&self, name: Cow<'static, str>, headers: &HeaderMap) -> Context {
        let from = TraceContextPropagator::new().extract_with_context(&Context::new(), &Incoming(headers));
        self.begin(name, SpanKind::Server, &from)
    }

    fn begin(&self, name: Cow<'static, str>, kind: SpanKind, from: &Context) -> Context {
        let span = self.tracer.build_with_context(SpanBuilder::from_name(name).with_kind(kind), from);
        from.with_span(span)
    }

    /// A span within another that is over already.
    pub(crate) fn record(&self, name: &'static str, (began, took): (Instant, Duration), within: &Context) {
        let began = SystemTime::now() - began.elapsed();
        let span = SpanBuilder::from_name(name).with_kind(SpanKind::Internal).with_start_time(began);
        self.tracer.build_with_context(span, within).end_with_timestamp(began + took);
    }

    /// Gives the collector what it does not have yet, for a while.
    pub async fn finish(self) {
        let finished = move || self.provider.shutdown_with_timeout(LAST_EXPORT_WITHIN);
        if let Ok(Err(failure)) = tokio::task::spawn_blocking(finished).await {
            warn!(%failure, "the collector has not got the last spans");
        }
    }
}

/// Has `headers` say that what is asked with them is part of this span.
fn hand_on(span: &Context, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(span, &mut Onward(headers));
}
