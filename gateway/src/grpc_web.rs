//! gRPC-Web, for browsers: translated to gRPC on the way in and back on the way out, in both of its modes and over both
//! versions of HTTP, so that everything else here sees gRPC alone.

use std::convert::Infallible;

use axum::{
    body::{Body, HttpBody},
    extract::Request,
    http::{HeaderMap, header},
    middleware::Next,
    response::Response,
};
use http_body_util::{BodyExt, Empty};
use tonic::Status;
use tonic_web::GrpcWebLayer;
use tower::{Layer, ServiceExt, service_fn};

pub(crate) async fn translate(request: Request, next: Next) -> Response {
    let is_web = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc-web"));
    if !is_web {
        return next.run(request).await;
    }
    let grpc = service_fn(move |call: http::Request<tonic::body::Body>| {
        let next = next.clone();
        // Decoded from Base64 a body is shorter than it says.
        let call = call.map(|body| Body::new(of_unknown_length(body)));
        async move { Ok::<_, Infallible>(in_trailers(next.run(call).await)) }
    });
    match GrpcWebLayer::new().layer(grpc).oneshot(request).await {
        Ok(response) => response.map(Body::new),
        Err(never) => match never {},
    }
}

/// Moves a status from the headers to the trailers, which a page of another origin can read without leave. The trailers
/// become a part of the body, so its length is not known any more.
fn in_trailers(response: Response) -> Response {
    let (mut head, mut body) = response.into_parts();
    if head.headers.contains_key(Status::GRPC_STATUS) {
        let mut trailers = HeaderMap::new();
        for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
            if let Some(value) = head.headers.remove(&name) {
                trailers.insert(name, value);
            }
        }
        body = Body::new(Empty::new().with_trailers(std::future::ready(Some(Ok(trailers)))));
    }
    head.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(head, Body::new(of_unknown_length(body)))
}

fn of_unknown_length<B: HttpBody>(body: B) -> impl HttpBody<Data = B::Data, Error = B::Error> {
    body.map_frame(|frame| frame)
}
