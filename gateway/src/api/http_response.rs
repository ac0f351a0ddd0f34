//! Responses of all HTTP routes: JSON bodies, bodies produced in pieces, `Retry-After`.

use std::{io, mem, time::Duration};

use axum::{
    body::Body,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use muse_proto::{Error, Reason};
use serde::Serialize;
use tonic::Code;
use tracing::error;

pub(crate) const X_SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// A JSON body.
pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (status, [(header::CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(failure) => {
            error!(%failure, "a response cannot be serialized");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

/// A longer array is produced on a blocking thread; a number takes some 30 ns.
const MAX_INLINE_ITEMS: usize = 16;
/// Maximum items of a piece. An array with no more items is one piece.
const PIECE_ITEMS: usize = 32;
/// A piece of so many bytes is sent, also with fewer items.
const PIECE_BYTES: usize = 128 << 10;

/// A body with a long array, which is produced in pieces while the client reads it.
pub(crate) struct ArrayBody<T, W> {
    /// Bytes before the items, until they are produced.
    pub(crate) head: Vec<u8>,
    pub(crate) items: std::vec::IntoIter<T>,
    /// Bytes between two items.
    pub(crate) separator: &'static [u8],
    /// Appends an item.
    pub(crate) write: W,
    /// Bytes after the items, until they are produced.
    pub(crate) tail: Vec<u8>,
}

impl<T, W> ArrayBody<T, W>
where
    T: Send + 'static,
    W: FnMut(&mut Vec<u8>, T) -> serde_json::Result<()> + Send + 'static,
{
    /// The response with this body. It has a length if it is one piece.
    pub(crate) async fn respond(mut self, content_type: &'static str) -> Result<Response, Error> {
        let count = self.items.len();
        let body = if count > PIECE_ITEMS {
            Body::from_stream(stream::try_unfold(self, async |mut array| {
                let next = tokio::task::spawn_blocking(move || {
                    array.next_piece().map(|piece| Some((piece?, array)))
                });
                next.await.map_err(io::Error::other)?
            }))
        } else if count > MAX_INLINE_ITEMS {
            let whole = tokio::task::spawn_blocking(move || self.whole()).await;
            whole.map_err(io::Error::other).flatten().map_err(|failure| not_written(&failure))?.into()
        } else {
            self.whole().map_err(|failure| not_written(&failure))?.into()
        };
        Ok(([(header::CONTENT_TYPE, content_type)], body).into_response())
    }

    fn whole(&mut self) -> io::Result<Bytes> {
        let mut whole = Vec::new();
        while let Some(piece) = self.next_piece()? {
            if whole.is_empty() && self.tail.is_empty() {
                return Ok(piece);
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        let is_first = !self.head.is_empty();
        let mut piece = mem::take(&mut self.head);
        let mut count = 0;
        while count < PIECE_ITEMS
            && piece.len() < PIECE_BYTES
            && let Some(item) = self.items.next()
        {
            if count > 0 || !is_first {
                piece.extend_from_slice(self.separator);
            }
            (self.write)(&mut piece, item)?;
            count += 1;
        }
        if self.items.len() == 0 {
            piece.append(&mut self.tail);
        }
        Ok((!piece.is_empty()).then(|| piece.into()))
    }
}

fn not_written(failure: &io::Error) -> Error {
    error!(%failure, "a response cannot be produced");
    Error::new(Reason::Internal, "a response cannot be produced")
}

/// The status of an error on the routes of muse_as_service, by the table of errors.
pub(crate) fn status(error: &Error) -> StatusCode {
    StatusCode::from_u16(error.reason().http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

/// The status of an error on all other routes: 401 for every invalid credential, of which some are 422 in muse_as_service.
pub(crate) fn standard_status(error: &Error) -> StatusCode {
    match error.reason().code() {
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        _ => status(error),
    }
}

/// The text of an error for the client. Details of internal errors are only logged.
pub(crate) fn text(error: &Error) -> &str {
    match error.reason() {
        Reason::Internal => "Internal Server Error",
        _ => error.message(),
    }
}

/// Whole seconds after which the client may retry, if a retry may succeed.
pub(crate) fn retry_after(error: &Error) -> Option<u64> {
    let may_succeed =
        matches!(error.reason(), Reason::TooManyAttempts | Reason::Overloaded | Reason::Unavailable);
    let wait = error.retry_after().or(may_succeed.then_some(Duration::from_secs(1)))?;
    Some(1.max(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

/// `X-Should-Retry: false` for an exhausted quota: OpenAI's SDKs and the Python client of this service
/// otherwise repeat a request with the status 429.
pub(crate) fn should_retry(error: &Error) -> Option<(HeaderName, HeaderValue)> {
    let is_final = error.reason() == Reason::QuotaExhausted;
    is_final.then_some((X_SHOULD_RETRY, HeaderValue::from_static("false")))
}

/// Sets `Retry-After`, if there is a wait.
pub(crate) fn set_retry_after(response: &mut Response, seconds: Option<u64>) {
    if let Some(seconds) = seconds {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn long_arrays_are_produced_in_pieces() {
        for count in [0, 1, 16, 17, 32, 33, 64, 65, 1000] {
            let items: Vec<usize> = (0..count).collect();
            let array = ArrayBody {
                head: b"[".to_vec(),
                items: items.clone().into_iter(),
                separator: b",",
                write: |piece: &mut Vec<u8>, item| serde_json::to_writer(piece, &item),
                tail: b"]".to_vec(),
            };
            let response = array.respond("application/json").await.unwrap();
            let length = http_body::Body::size_hint(response.body()).exact();
            let mut body = response.into_body();
            let (mut whole, mut pieces) = (Vec::new(), 0);
            while let Some(piece) = body.frame().await {
                whole.extend_from_slice(&piece.unwrap().into_data().unwrap());
                pieces += 1;
            }
            assert_eq!(serde_json::from_slice::<Vec<usize>>(&whole).unwrap(), items);
            let expected = (count <= PIECE_ITEMS).then_some(whole.len() as u64);
            assert_eq!((length, pieces), (expected, 1.max(count.div_ceil(PIECE_ITEMS))), "{count}");
        }
    }
}
