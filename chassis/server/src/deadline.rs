//! How long a caller waits: `grpc-timeout` of gRPC over HTTP/2.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use muse_proto::{Error, Reason};
use tokio::time::timeout_at;

/// The header.
pub const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// When the caller of a request stops to wait, as an extension of the request: `grpc-timeout` counts from its arrival.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(pub Instant);

/// How long the caller waits for the end of a call with these headers, if that was said.
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

/// The header that says to wait no longer than this. Nothing for less than a millisecond, which is no time.
#[must_use]
pub fn header(wait: Duration) -> Option<HeaderValue> {
    let milliseconds = wait.as_millis().min(99_999_999);
    (milliseconds > 0).then(|| HeaderValue::try_from(format!("{milliseconds}m")).ok())?
}

/// When the deadline of a call with these headers, which has just arrived, passes; nothing without a deadline.
#[must_use]
pub fn end(headers: &HeaderMap) -> Option<Instant> {
    of(headers).and_then(|wait| Instant::now().checked_add(wait))
}

/// Sets the deadline of a call that is forwarded to the time that is left until `end`, rounded up to a millisecond: when the
/// forwarded deadline has passed, so has the caller's.
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

/// Does a part of a call, until `end` at most.
///
/// # Errors
///
/// Those of the work; [`passed`] if it is not done at `end`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_unit_is_read_and_the_rest_is_not() {
        let read = |text: &str| of(&HeaderMap::from_iter([(GRPC_TIMEOUT, text.parse().unwrap())]));
        assert_eq!(read("2H"), Some(Duration::from_secs(7200)));
        assert_eq!(read("3M"), Some(Duration::from_secs(180)));
        assert_eq!(read("42S"), Some(Duration::from_secs(42)));
        assert_eq!(read("13m"), Some(Duration::from_millis(13)));
        assert_eq!(read("2u"), Some(Duration::from_micros(2)));
        assert_eq!(read("99999999n"), Some(Duration::from_nanos(99_999_999)));
        for odd in ["", "S", "1", "1s", "-1S", "+1S", "1.5S", "123456789S", " 1S", "\u{fc}"] {
            assert_eq!(read(odd), None, "{odd:?}");
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
    fn what_is_written_can_be_read() {
        let written = |wait| of(&HeaderMap::from_iter([(GRPC_TIMEOUT, header(wait)?)]));
        assert_eq!(written(Duration::from_micros(1500)), Some(Duration::from_millis(1)));
        assert_eq!(written(Duration::from_secs(120)), Some(Duration::from_secs(120)));
        assert_eq!(written(Duration::MAX), Some(Duration::from_millis(99_999_999)));
        assert_eq!(written(Duration::from_micros(999)), None);
    }
}
