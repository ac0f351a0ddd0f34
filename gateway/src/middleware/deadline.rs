//! Deadlines of HTTP requests: the header `Grpc-Timeout`, as grpc-gateway has it.

use std::time::Instant;

use axum::{extract::Request, middleware::Next, response::Response};
use http::Extensions;
use muse_chassis::deadline::{self, GRPC_TIMEOUT};
use muse_proto::{Error, Reason};

use crate::routing::refusal;

/// When the client of a request stops to wait for the response.
#[derive(Debug, Clone, Copy)]
struct Deadline(Instant);

/// Ends a request at its deadline, with 504, and drops the calls that are made for it.
pub(crate) async fn apply_deadline(mut request: Request, next: Next) -> Response {
    if !request.headers().contains_key(GRPC_TIMEOUT) {
        return next.run(request).await;
    }
    let Some(end) = deadline::end(request.headers()) else {
        let text =
            "The Grpc-Timeout header must be a number of at most 8 digits with a unit: H, M, S, m, u or n";
        return refusal(request, Error::new(Reason::InvalidArgument, text)).await;
    };
    request.extensions_mut().insert(Deadline(end));
    // Of the request, what an error needs.
    let (head, body) = request.into_parts();
    let without_body = Request::from_parts(head.clone(), axum::body::Body::empty());
    let answered = deadline::within(Some(end), async { Ok(next.run(Request::from_parts(head, body)).await) });
    match answered.await {
        Ok(response) => response,
        Err(error) => refusal(without_body, error).await,
    }
}

/// Sets the deadline of a call that is made for a request with these extensions.
///
/// # Errors
///
/// [`Reason::DeadlineExceeded`] if it has passed.
pub(crate) fn forward_deadline<T>(of: &Extensions, call: &mut tonic::Request<T>) -> Result<(), Error> {
    match of.get() {
        Some(&Deadline(end)) => deadline::set(call.metadata_mut().as_mut(), end),
        None => Ok(()),
    }
}
