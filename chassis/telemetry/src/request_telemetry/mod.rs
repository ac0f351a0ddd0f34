//! Request telemetry of a service: counts requests by route, status and class of user, measures
//! their duration, and creates a span and a line of the access log for each.
//!
//! A gRPC call ends with its trailers, another request with the head of its response, and both end
//! when the caller cancels them.

mod body;
mod client;
mod context;
mod id;
mod layer;
mod status;

use std::{borrow::Cow, sync::Arc, time::Instant};

use http::{HeaderMap, Method, Response, header, request::Parts};
use opentelemetry::{
    KeyValue,
    trace::{Status as SpanStatus, TraceContextExt},
};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use tonic::{Code, Status};
use tracing::{Level, debug, error_span, field, info};

use crate::{metrics::Metrics, trace::Traces};
pub use body::TelemetryBody;
pub use client::TracedClient;
pub use context::{Caller, RequestContext};
pub use id::REQUEST_ID;
use id::RequestId;
pub use layer::{TelemetryFuture, TelemetryLayer, TelemetryService, call_of, route};
use status::End;
use status::name_of;

/// The route label of requests to unknown routes.
pub const OTHER: &str = "other";
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The request telemetry of a service. Clones share it.
#[derive(Debug, Clone)]
pub struct RequestTelemetry(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    answered: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
    traces: Traces,
    /// The level of the access log.
    access_level: Level,
}

impl RequestTelemetry {
    /// Registers the metrics, and logs the end of each request with the target `access`, at level
    /// INFO (on the users' port) or DEBUG.
    #[must_use]
    pub fn new(metrics: &Metrics, traces: Traces, access_level: Level) -> Self {
        Self(Arc::new(Shared {
            answered: metrics.counters(
                "muse_requests_total",
                "Requests that were answered, by route (an HTTP route or a gRPC method), status (of HTTP, or the name \
                 of gRPC's) and user (anonymous, user, admin).",
                &["route", "status", "user"],
            ),
            duration: metrics.histograms(
                "muse_request_duration_seconds",
                "Time from the head of a request to the head of its response; of a gRPC call to its end.",
                &["route"],
                SECONDS,
            ),
            in_flight: metrics.gauge("muse_requests_in_flight", "Requests in flight, including streams."),
            traces,
            access_level,
        }))
    }

    /// Begins a request on this route.
    #[must_use]
    pub fn begin(&self, route: Cow<'static, str>, request: &Parts) -> RequestSpan {
        self.0.in_flight.inc();
        let (method, headers) = (&request.method, &request.headers);
        let is_call = is_call(headers);
        let name = if is_call { route.clone() } else { format!("{method} {route}").into() };
        let trace = self.0.traces.begin_server(name, headers);
        let span = trace.span();
        let trace_id = span.span_context().trace_id();
        let id = RequestId::of(headers).unwrap_or_else(|| RequestId::of_trace(trace_id));
        // Each log line of the request has its id.
        let log = error_span!("request", request_id = %id, trace_id = field::Empty, user = field::Empty);
        if span.is_recording() {
            log.record("trace_id", field::display(trace_id));
            span.set_attribute(KeyValue::new("muse.request_id", id.to_string()));
            span.set_attributes(attributes(is_call, method, &route));
        }
        RequestSpan {
            requests: self.clone(),
            context: RequestContext::new(id, self.0.traces.clone(), trace, log),
            route,
            method: (!is_call).then(|| method.clone()),
            began: Instant::now(),
            ended: false,
        }
    }
}

/// A request until its response ends. If it is dropped before, it counts as cancelled by its
/// caller.
#[derive(Debug)]
pub struct RequestSpan {
    requests: RequestTelemetry,
    context: RequestContext,
    route: Cow<'static, str>,
    /// The HTTP method; `None` for a gRPC call.
    method: Option<Method>,
    began: Instant,
    ended: bool,
}

impl RequestSpan {
    /// Ends the request with its response, or with the trailers of a gRPC response.
    pub fn respond<B>(mut self, mut response: Response<B>) -> Response<TelemetryBody<B>> {
        self.context.id().put(response.headers_mut());
        let end = match Status::from_header_map(response.headers()) {
            Some(status) if is_call(response.headers()) => Some(End::Call(status.code())),
            None if is_call(response.headers()) => None,
            _ => Some(End::Http(response.status())),
        };
        let rest = match end {
            Some(end) => {
                self.end(end);
                None
            }
            None => Some(self),
        };
        response.map(|body| TelemetryBody::new(body, rest))
    }

    fn end(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let Self { requests, context, route, .. } = self;
        let Shared { answered, duration, in_flight, access_level, .. } = &*requests.0;
        let (took, status, caller) = (self.began.elapsed(), end.name(), context.caller());
        answered.with_label_values(&[&**route, &*status, caller.as_str()]).inc();
        duration.with_label_values(&[&**route]).observe(took.as_secs_f64());
        in_flight.dec();

        let _in_span = context.log().enter();
        let method = self.method.as_ref().map(field::display);
        let ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        if *access_level == Level::INFO {
            info!(target: "access", method, %route, %status, ms, "answered");
        } else {
            debug!(target: "access", method, %route, %status, ms, "answered");
        }

        let span = context.trace().span();
        if span.is_recording() {
            span.set_attributes(end.attribute());
            span.set_attribute(KeyValue::new("muse.user_class", caller.as_str()));
            if end.is_fault() {
                span.set_status(SpanStatus::error(status.into_owned()));
            }
        }
        span.end();
    }
}

impl Drop for RequestSpan {
    fn drop(&mut self) {
        self.end(if self.method.is_none() { End::Call(Code::Cancelled) } else { End::Cancelled });
    }
}

/// Whether the headers are those of a gRPC or gRPC-Web call, or of its response.
#[must_use]
pub fn is_call(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The attributes of a request's span, by OpenTelemetry's conventions.
fn attributes(is_call: bool, method: &Method, route: &str) -> [KeyValue; 2] {
    let pairs = if is_call {
        [("rpc.system", "grpc".to_owned()), ("rpc.method", route.trim_start_matches('/').to_owned())]
    } else {
        [("http.request.method", method.to_string()), ("http.route", route.to_owned())]
    };
    pairs.map(|(key, value)| KeyValue::new(key, value))
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use http::{Extensions, HeaderValue, Request};
    use http_body_util::{BodyExt, Empty, combinators::BoxBody};
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    const CALL: &str = "/muse.v1.EmbedderService/Embed";

    fn counted(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text();
        text.lines().filter(|line| line.starts_with("muse_requests_")).map(str::to_owned).collect()
    }

    fn requests(metrics: &Metrics) -> RequestTelemetry {
        RequestTelemetry::new(metrics, Traces::unrecorded("muse-test"), Level::INFO)
    }

    /// A gRPC call.
    fn request(method: &str, path: &str) -> Request<()> {
        let request = Request::builder().method(method).uri(path);
        request.header(header::CONTENT_TYPE, "application/grpc").body(()).unwrap()
    }

    /// A call by an admin, whose trailers contain `status`.
    async fn answer(request: Request<()>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        RequestContext::record_caller(request.extensions(), Caller::Admin, "root");
        let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("8"))]);
        let body = Empty::<Bytes>::new().with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(body.boxed());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }

    #[tokio::test]
    async fn call_is_counted_by_its_trailers_or_its_cancellation() {
        let metrics = Metrics::of("muse-test");
        let observe = TelemetryLayer { requests: requests(&metrics), route: call_of };
        let service = observe.layer(service_fn(answer));
        let call = |path: &str| service.clone().oneshot(request("POST", path));

        let Ok(answer) = call(CALL).await;
        assert_eq!(counted(&metrics), ["muse_requests_in_flight 1"]);
        answer.into_body().collect().await.unwrap();
        let Ok(unread) = call("/muse.v1.EmbedderService/MadeUp").await;
        drop(unread);
        let never = service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>());
        let unanswered = observe.layer(never).oneshot(request("POST", CALL));
        assert!(tokio::time::timeout(Duration::from_millis(1), unanswered).await.is_err());
        let counts = [
            "muse_requests_in_flight 0",
            r#"muse_requests_total{route="/muse.v1.EmbedderService/Embed",status="CANCELLED",user="anonymous"} 1"#,
            r#"muse_requests_total{route="/muse.v1.EmbedderService/Embed",status="RESOURCE_EXHAUSTED",user="admin"} 1"#,
            r#"muse_requests_total{route="other",status="CANCELLED",user="admin"} 1"#,
        ];
        assert_eq!(counted(&metrics), counts);
    }

    #[tokio::test]
    async fn http_request_is_counted_by_its_status() {
        let metrics = Metrics::of("muse-test");
        let requests = requests(&metrics);
        let (head, ()) = Request::builder().uri("/embed").body(()).unwrap().into_parts();
        let span = requests.begin("/embed".into(), &head);
        let mut extensions = Extensions::new();
        extensions.insert(span.context.clone());
        RequestContext::record_caller(&extensions, Caller::User, "a");
        let answered = span.respond(Response::new(()));
        drop(requests.begin("/embed".into(), &head));
        let counts = [
            "muse_requests_in_flight 0",
            r#"muse_requests_total{route="/embed",status="200",user="user"} 1"#,
            r#"muse_requests_total{route="/embed",status="499",user="anonymous"} 1"#,
        ];
        assert_eq!(counted(&metrics), counts);
        drop(answered);
        assert_eq!(counted(&metrics), counts);
    }

    /// The headers that another service receives for a request with these headers, and those of the
    /// response.
    async fn forwarded(given: &[(&'static str, &'static str)]) -> (HeaderMap, HeaderMap) {
        let received = Arc::new(std::sync::Mutex::new(HeaderMap::new()));
        let sink = Arc::clone(&received);
        let behind = service_fn(move |call: Request<()>| {
            *sink.lock().unwrap() = call.headers().clone();
            std::future::ready(Ok::<_, Infallible>(Response::new(())))
        });
        let forward = service_fn(move |call: Request<()>| TracedClient(behind.clone()).oneshot(call));
        let observe = TelemetryLayer { requests: requests(&Metrics::of("muse-test")), route: call_of };
        let mut call = request("POST", CALL);
        for (name, value) in given {
            call.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let Ok(answer) = observe.layer(forward).oneshot(call).await;
        (received.lock().unwrap().clone(), answer.headers().clone())
    }

    #[tokio::test]
    async fn trace_and_id_are_forwarded_without_a_collector() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let given = [("traceparent", parent), ("tracestate", "a=1,b=2"), ("x-request-id", "order-66")];
        let (received, answered) = forwarded(&given).await;
        let text = |headers: &HeaderMap, name: &str| {
            headers.get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        let parts: Vec<_> = text(&received, "traceparent").split('-').map(str::to_owned).collect();
        assert_eq!((parts.len(), &*parts[1]), (4, trace));
        assert_ne!(parts[2], "00f067aa0ba902b7", "the span is the caller's");
        assert_eq!(text(&received, "tracestate"), "a=1,b=2");
        assert_eq!(
            (text(&received, "x-request-id"), text(&answered, "x-request-id")),
            ("order-66".into(), "order-66".into())
        );

        let (received, answered) = forwarded(&[("traceparent", "nonsense"), ("tracestate", "a=1")]).await;
        let parts: Vec<_> = text(&received, "traceparent").split('-').map(str::to_owned).collect();
        assert_eq!((&*parts[0], parts[1].len(), parts[2].len(), &*parts[3]), ("00", 32, 16, "00"));
        assert!(!received.contains_key("tracestate"));
        // The service behind derives it from the trace.
        assert!(!received.contains_key("x-request-id"));
        assert_eq!(text(&answered, "x-request-id"), parts[1]);
    }
}
