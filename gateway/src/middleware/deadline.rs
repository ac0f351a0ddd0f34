//! Deadlines of HTTP requests, by the header `Grpc-Timeout`, as in grpc-gateway.
//!
//! This is not tower-http's `TimeoutLayer`: the timeout comes from the request, and the error has the format of its API.

use axum::{extract::Request, middleware::Next, response::Response};
use muse_proto::{Error, Reason};
use muse_server::deadline::{self, Deadline, GRPC_TIMEOUT};

use crate::api::routing::error_response;

/// Ends a request at its deadline, with 504, and drops the calls that are made for it.
pub(crate) async fn apply_deadline(mut request: Request, next: Next) -> Response {
    if !request.headers().contains_key(GRPC_TIMEOUT) {
        return next.run(request).await;
    }
    let Some(end) = deadline::end(request.headers()) else {
        let text =
            "The Grpc-Timeout header must be a number of at most 8 digits with a unit: H, M, S, m, u or n";
        return error_response(request, Error::new(Reason::InvalidArgument, text)).await;
    };
    request.extensions_mut().insert(Deadline(end));
    // An error needs the head of the request.
    let (head, body) = request.into_parts();
    let without_body = Request::from_parts(head.clone(), axum::body::Body::empty());
    let response = deadline::within(Some(end), async { Ok(next.run(Request::from_parts(head, body)).await) });
    match response.await {
        Ok(response) => response,
        Err(error) => error_response(without_body, error).await,
    }
}

/// Adds the deadline of a request, if any, to its call.
///
/// # Errors
///
/// [`Reason::DeadlineExceeded`] if it has passed.
pub(crate) fn with_deadline<T>(
    mut call: tonic::Request<T>,
    deadline: Option<Deadline>,
) -> Result<tonic::Request<T>, Error> {
    if let Some(Deadline(end)) = deadline {
        deadline::set(call.metadata_mut().as_mut(), end)?;
    }
    Ok(call)
}
