//! The fingerprint of the model in the responses of all routes that use the model, also in errors.

use axum::{extract::Request, response::Response};
use http::HeaderMap;
use muse_balancer::{Balancer, ResponseFingerprint};
use muse_proto::FINGERPRINT;
use tonic::{Code, Status};

use super::{Around, Rejection};

/// Adds the fingerprint to responses: that of the embedder which responded to the call of the request; to an error without such a
/// call, that of the served model.
#[derive(Debug, Clone)]
pub(crate) struct ReportFingerprint(pub(crate) Balancer);

impl Around for ReportFingerprint {
    /// Of a route that uses the model.
    type Context = Option<(Balancer, ResponseFingerprint)>;

    fn before(&self, request: &mut Request) -> Result<Self::Context, Rejection> {
        if !uses_model(request.uri().path()) {
            return Ok(None);
        }
        let responded = ResponseFingerprint::default();
        // The handlers add it to their calls.
        request.extensions_mut().insert(responded.clone());
        Ok(Some((self.0.clone(), responded)))
    }

    fn after(context: Self::Context, mut response: Response) -> Response {
        let Some((balancer, responded)) = context else { return response };
        // The gRPC proxy forwards the header.
        if response.headers().contains_key(FINGERPRINT) {
            return response;
        }
        let served = || {
            let model = balancer.served().filter(|_| is_error(&response))?;
            model.fingerprint().cloned()
        };
        if let Some(fingerprint) = responded.get().or_else(served) {
            response.headers_mut().insert(FINGERPRINT, (&fingerprint).into());
        }
        response
    }
}

/// Whether the handler of a path calls the embedders.
pub(crate) fn uses_model(path: &str) -> bool {
    matches!(path, "/embed" | "/tokenize" | "/api/status" | "/v1/embeddings" | "/v1/models")
        || path.starts_with("/v1/models/")
        || path.starts_with("/muse.v1.EmbedderService/")
}

fn is_error(response: &Response) -> bool {
    let is_status = |headers: &HeaderMap| {
        headers.get(Status::GRPC_STATUS).is_some_and(|status| Code::from_bytes(status.as_bytes()) != Code::Ok)
    };
    response.status().is_client_error()
        || response.status().is_server_error()
        || is_status(response.headers())
}
