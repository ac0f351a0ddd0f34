//! Deadlines of calls: `grpc-timeout` of gRPC over HTTP/2, and the layer that enforces it.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use muse_proto::{Error, Reason};
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep, timeout_at};
use tonic::Status;
use tower::{Layer, Service};

/// The header.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The deadline of a request, as an extension of the request: its arrival plus `grpc-timeout`.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// The timeout in the headers of a call, if there is a valid one.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    // At most eight digits, so nothing here overflows.
    if !(1..=8).contains(&number.len()) || !number.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// The value of the header for this timeout; `None` for less than a millisecond.
#[must_use]
pub fn header(wait: Duration) -> Option<HeaderValue> {
    let milliseconds = wait.as_millis().min(99_999_999);
    (milliseconds > 0).then(|| HeaderValue::try_from(format!("{milliseconds}m")).ok())?
}

/// The deadline of a call with these headers that has just arrived, if it has one.
#[must_use]
pub fn end(headers: &HeaderMap) -> Option<Instant> {
    of(headers).and_then(|wait| Instant::now().checked_add(wait))
}

/// Sets the deadline of a call that is forwarded to the time that is left until `end`, rounded up
/// to a millisecond: when the forwarded deadline has passed, so has the caller's.
///
/// # Errors
///
/// [`passed`] if no time is left.
pub fn set(headers: &mut HeaderMap, end: Instant) -> Result<(), Error> {
    let left = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero());
    let rounded_up = left.ok_or_else(passed)? + Duration::from_nanos(999_999);
    headers.insert(GRPC_TIMEOUT, header(rounded_up).ok_or_else(passed)?);
    Ok(())
}

/// Runs a part of a call until `end` at most.
///
/// # Errors
///
/// Those of `work`; [`passed`] if it has not finished by `end`.
pub async fn within<T>(
    end: Option<Instant>,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    match end {
        Some(end) => timeout_at(end.into(), work).await.map_err(|_| passed())?,
        None => work.await,
    }
}

/// The error of a call whose caller's deadline has passed.
#[must_use]
pub fn passed() -> Error {
    Error::new(Reason::DeadlineExceeded, "the caller's deadline passed before the answer was there")
}

/// Ends calls at their deadline with DEADLINE_EXCEEDED; tonic alone would return CANCELLED a moment
/// later.
#[derive(Debug, Clone, Copy)]
pub struct DeadlineLayer;

impl<S> Layer<S> for DeadlineLayer {
    type Service = DeadlineService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        DeadlineService(inner)
    }
}

/// The service of [`DeadlineLayer`].
#[derive(Debug, Clone)]
pub struct DeadlineService<S>(S);

impl<S, Req, Res> Service<Request<Req>> for DeadlineService<S>
where
    S: Service<Request<Req>, Response = Response<Res>>,
    Res: Default,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = DeadlineFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Req>) -> Self::Future {
        let deadline = of(request.headers()).map(sleep);
        DeadlineFuture { response: self.0.call(request), deadline }
    }
}

pin_project! {
    /// The future of [`DeadlineService`].
    pub struct DeadlineFuture<F> {
        #[pin]
        response: F,
        #[pin]
        deadline: Option<Sleep>,
    }
}

impl<F, Res, E> Future for DeadlineFuture<F>
where
    F: Future<Output = Result<Response<Res>, E>>,
    Res: Default,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        if let Poll::Ready(response) = this.response.poll(context) {
            return Poll::Ready(response);
        }
        match this.deadline.as_pin_mut().map(|deadline| deadline.poll(context)) {
            Some(Poll::Ready(())) => Poll::Ready(Ok(Status::from(passed()).into_http())),
            _ => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tower::{ServiceExt, service_fn};

    use super::*;

    #[test]
    fn each_unit_is_parsed_and_invalid_values_are_ignored() {
        let read = |text: &str| of(&HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("42S"), Some(Duration::from_secs(42)));
        assert_eq!(read("13m"), Some(Duration::from_millis(13)));
        assert_eq!(read("2u"), Some(Duration::from_micros(2)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for invalid in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "\u{fc}"] {
            assert_eq!(read(invalid), None, "{invalid:?}");
        }
        assert_eq!(of(&HeaderMap::new()), None);
    }

    #[test]
    fn forwarded_deadline_is_no_earlier_than_the_callers() {
        let mut headers = HeaderMap::new();
        for left in [Duration::from_micros(300), Duration::from_micros(499_500)] {
            let end = Instant::now() + left;
            set(&mut headers, end).unwrap();
            let forwarded = of(&headers).unwrap();
            assert!(Instant::now() + forwarded >= end, "{left:?}: {forwarded:?}");
            assert!(forwarded <= left + Duration::from_millis(1), "{left:?}: {forwarded:?}");
        }
        assert_eq!(set(&mut headers, Instant::now()), Err(passed()));
    }

    #[test]
    fn written_timeout_can_be_parsed() {
        let written = |wait| of(&HeaderMap::from_iter([(GRPC_TIMEOUT, header(wait)?)]));
        assert_eq!(written(Duration::from_micros(1500)), Some(Duration::from_millis(1)));
        assert_eq!(written(Duration::from_secs(120)), Some(Duration::from_secs(120)));
        assert_eq!(written(Duration::MAX), Some(Duration::from_millis(99_999_999)));
        assert_eq!(written(Duration::from_micros(999)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn call_ends_at_its_deadline() {
        let never = service_fn(|_: Request<()>| std::future::pending::<Result<Response<()>, Infallible>>());
        let request = Request::builder().header(GRPC_TIMEOUT, "5m").body(()).unwrap();
        let began = tokio::time::Instant::now();
        let response = DeadlineLayer.layer(never).oneshot(request).await.unwrap();
        let status = Status::from_header_map(response.headers()).unwrap();
        assert_eq!(Error::from(&status), passed());
        assert_eq!(began.elapsed(), Duration::from_millis(5));
    }
}
