//! An OpenTelemetry collector that stores the received spans.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use muse_tests::TIMEOUT;
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use tokio::net::TcpListener;
use tonic::{
    Request, Response, Status,
    transport::{Server, server::TcpIncoming},
};

/// A span and its service.
#[derive(Debug, Clone)]
pub(crate) struct ServiceSpan {
    pub(crate) service: String,
    pub(crate) span: Span,
}

impl ServiceSpan {
    /// Whether the span has this service, name and kind.
    pub(crate) fn is(&self, (service, name, kind): (&str, &str, SpanKind)) -> bool {
        (&*self.service, &*self.span.name, self.span.kind()) == (service, name, kind)
    }

    /// An attribute as text, or an empty text.
    pub(crate) fn attribute(&self, key: &str) -> String {
        attribute(&self.span.attributes, key)
    }
}

fn attribute(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// The collector, which listens until the test ends.
#[derive(Debug, Clone)]
pub(crate) struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<ServiceSpan>>>,
}

impl Collector {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has ports");
        let address = listener.local_addr().expect("it listens");
        let collector = Self { address, spans: Arc::default() };
        let service = TraceServiceServer::new(collector.clone());
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        collector
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The received spans.
    pub(crate) fn spans(&self) -> Vec<ServiceSpan> {
        self.spans.lock().expect("nobody panics with it").clone()
    }

    /// Waits until a trace has a span for each of these services, names and kinds, and returns its
    /// spans.
    pub(crate) async fn trace(&self, id: &str, wanted: &[(&str, &str, SpanKind)]) -> Vec<ServiceSpan> {
        let end = Instant::now() + TIMEOUT;
        loop {
            let mut spans = self.spans();
            spans.retain(|spanned| hex(&spanned.span.trace_id) == id);
            if wanted.iter().all(|&kind| spans.iter().any(|spanned| spanned.is(kind))) {
                return spans;
            }
            assert!(Instant::now() < end, "there are not {wanted:?} in {spans:#?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut spans = self.spans.lock().expect("nobody panics with it");
        for of_service in request.into_inner().resource_spans {
            let about = of_service.resource.unwrap_or_default();
            let service = attribute(&about.attributes, "service.name");
            for span in of_service.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                spans.push(ServiceSpan { service: service.clone(), span });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
