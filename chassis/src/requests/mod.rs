//! Counts the requests that a service answers, by route, status and the class of the user, and times them.
//!
//! A request counts when its answer is decided: a call of gRPC with its last trailers, everything else with its head.
//! One whose caller goes before that counts, too.

mod caller;
mod grpc;
mod observed;

use std::{borrow::Cow, time::Instant};

use http::{HeaderMap, Response, header};
use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use tonic::{Code, Status};

use crate::metrics::Metrics;
pub use caller::{Caller, note_caller};
pub use grpc::{CountCalls, CountedCalls, route};
pub use observed::Observed;

/// What is asked where there is no such route, or none that is known here.
pub const OTHER: &str = "other";
/// The status of an HTTP request whose client has gone; there is none in the standard, and this is what many write.
const CLIENT_GONE: &str = "499";
const SECONDS: &[f64] =
    &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// The metrics of a service's requests.
#[derive(Debug, Clone)]
pub struct Requests {
    answered: IntCounterVec,
    duration: HistogramVec,
    in_flight: IntGauge,
}

impl Requests {
    /// Adds them to the service's metrics.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            answered: metrics.counters(
                "muse_requests_total",
                "Requests that were answered, by route (an HTTP route or a gRPC method), status (of HTTP, or the name \
                 of gRPC's) and user (anonymous, user, admin).",
                &["route", "status", "user"],
            ),
            duration: metrics.histograms(
                "muse_request_duration_seconds",
                "Time from the head of a request to its answer; of a gRPC call to its end.",
                &["route"],
                SECONDS,
            ),
            in_flight: metrics.gauge("muse_requests_in_flight", "Requests that are being answered, streams included."),
        }
    }

    /// A request has come.
    #[must_use]
    pub fn begin(&self, route: Cow<'static, str>, is_grpc: bool) -> Observation {
        self.in_flight.inc();
        let gone = if is_grpc { name(Code::Cancelled) } else { CLIENT_GONE };
        let began = Instant::now();
        Observation { requests: self.clone(), route, caller: Caller::Anonymous, began, gone: Some(gone) }
    }
}

/// A request that is not answered yet. Dropped before that, it counts as one whose caller has gone.
#[derive(Debug)]
pub struct Observation {
    requests: Requests,
    route: Cow<'static, str>,
    caller: Caller,
    began: Instant,
    /// What it counts as should the caller go; nothing once it has counted.
    gone: Option<&'static str>,
}

impl Observation {
    /// Follows the answer to its end.
    pub fn answered<B>(mut self, caller: Caller, response: Response<B>) -> Response<Observed<B>> {
        self.caller = caller;
        let is_grpc = is_grpc(response.headers());
        let ended = match Status::from_header_map(response.headers()) {
            Some(status) if is_grpc => Some(Cow::Borrowed(name(status.code()))),
            None if is_grpc => None,
            _ => Some(Cow::Owned(response.status().as_u16().to_string())),
        };
        let rest = match ended {
            Some(status) => {
                self.ends(&status);
                None
            }
            None => Some(self),
        };
        response.map(|body| Observed::new(body, rest))
    }

    /// A call of gRPC has ended.
    fn ended_with(mut self, code: Code) {
        self.ends(name(code));
    }

    fn ends(&mut self, status: &str) {
        if self.gone.take().is_none() {
            return;
        }
        let Self { requests: Requests { answered, duration, in_flight }, route, caller, began, .. } = self;
        answered.with_label_values(&[&**route, status, caller.as_str()]).inc();
        duration.with_label_values(&[&**route]).observe(began.elapsed().as_secs_f64());
        in_flight.dec();
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        if let Some(gone) = self.gone {
            self.ends(gone);
        }
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The name of a status of gRPC, as its specification writes it.
fn name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use http::{HeaderValue, Request};
    use http_body_util::{BodyExt, Empty, combinators::BoxBody};
    use hyper::body::Bytes;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;

    const CALL: &str = "/muse.v1.EmbedderService/Embed";

    fn counted(metrics: &Metrics) -> Vec<String> {
        let text = metrics.text();
        text.lines().filter(|line| line.starts_with("muse_requests_")).map(str::to_owned).collect()
    }

    /// A call whose token was found to be an admin's, and whose trailers say `status`.
    async fn answer(_: Request<()>) -> Result<Response<BoxBody<Bytes, Infallible>>, Infallible> {
        note_caller(Caller::Admin);
        let trailers = HeaderMap::from_iter([(Status::GRPC_STATUS, HeaderValue::from_static("8"))]);
        let body = Empty::<Bytes>::new().with_trailers(std::future::ready(Some(Ok(trailers))));
        let mut response = Response::new(body.boxed());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        Ok(response)
    }

    #[tokio::test]
    async fn a_call_counts_by_its_trailers_or_when_its_caller_goes() {
        let metrics = Metrics::of("muse-test");
        let requests = Requests::new(&metrics);
        let service = CountCalls(requests.clone()).layer(service_fn(answer));
        let call = |path: &str| service.clone().oneshot(Request::builder().uri(path).body(()).unwrap());

        let Ok(answer) = call(CALL).await;
        assert_eq!(counted(&metrics), ["muse_requests_in_flight 1"]);
        answer.into_body().collect().await.unwrap();
        let Ok(unread) = call("/muse.v1.EmbedderService/MadeUp").await;
        drop(unread);
        let never = service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>());
        let never = CountCalls(requests).layer(never);
        let unanswered = never.oneshot(Request::builder().uri(CALL).body(()).unwrap());
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
    async fn what_is_no_call_counts_with_its_head() {
        let metrics = Metrics::of("muse-test");
        let requests = Requests::new(&metrics);
        let answered = requests.begin("/embed".into(), false).answered(Caller::User, Response::new(()));
        drop(requests.begin("/embed".into(), false));
        let counts = [
            "muse_requests_in_flight 0",
            r#"muse_requests_total{route="/embed",status="200",user="user"} 1"#,
            r#"muse_requests_total{route="/embed",status="499",user="anonymous"} 1"#,
        ];
        assert_eq!(counted(&metrics), counts);
        drop(answered);
        assert_eq!(counted(&metrics), counts);
    }
}
