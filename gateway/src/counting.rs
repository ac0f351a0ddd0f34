//! Counts requests by the route that they have matched.

use std::borrow::Cow;

use axum::{
    body::Body,
    extract::{MatchedPath, Request, State},
    http::header,
    middleware::Next,
    response::Response,
};
use muse_chassis::requests::{self, Caller, OTHER, Requests};

pub(crate) async fn count(State(requests): State<Requests>, request: Request, next: Next) -> Response {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let is_grpc = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let route: Cow<'static, str> = match request.extensions().get::<MatchedPath>() {
        _ if is_grpc => requests::route(request.uri().path()).into(),
        Some(route) => route.as_str().to_owned().into(),
        None => OTHER.into(),
    };
    let observation = requests.begin(route, is_grpc);
    let (response, caller) = Caller::of(next.run(request)).await;
    observation.answered(caller, response).map(Body::new)
}
