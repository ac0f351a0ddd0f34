//! The router of the public port, and all of its layers.

use axum::{Router, extract::Request, middleware::from_fn, response::Response};
use muse_server::ServiceContext;
use muse_telemetry::request_telemetry::TelemetryLayer;
use prost::DecodeError;
use tonic::service::Routes;
use tower::{Service, ServiceBuilder};

use crate::{
    Config,
    api::{grpc, keys, openai, openapi, rest, routing, status, usage, users},
    middleware::{
        AroundLayer, Authenticate, CallLimits, ClientAddress, Cors, DetourLayer, GrpcWeb, QuotaHeaders,
        ReportFingerprint, SecurityHeaders, WellFormed, apply_deadline, compress,
    },
    page,
    upstream::Upstream,
};

/// The service of the public port.
///
/// # Errors
///
/// If the descriptor set of the proto files cannot be decoded.
pub(crate) fn app(
    config: &Config,
    upstream: Upstream,
    context: &ServiceContext,
) -> Result<
    impl Service<Request, Response = Response, Error = std::convert::Infallible, Future: Send>
    + Clone
    + Send
    + 'static,
    DecodeError,
> {
    // Routes over HTTP. Each requires an access token unless it is registered otherwise: see `auth`.
    let http = rest::routes(upstream.clone(), config.cookies)
        .merge(openai::routes(upstream.clone()))
        .merge(keys::routes(upstream.clone(), config.cookies))
        .merge(users::routes(upstream.clone(), config.cookies))
        .merge(usage::routes(upstream.clone(), config.cookies))
        .merge(status::routes(upstream.clone(), config.cookies))
        .merge(page::routes(&upstream.verifier, config.page, config.cookies))
        .merge(openapi::routes(&upstream.verifier))
        .into_router()
        // Ends a request at the deadline of its Grpc-Timeout header.
        .layer(from_fn(apply_deadline))
        // Compresses responses.
        .layer(from_fn(compress));

    // Public services of the gateway itself: health and reflection.
    let own = Routes::new(context.health_service.clone())
        .add_service(grpc::reflection::v1::server()?)
        .add_service(grpc::reflection::v1alpha::server()?)
        .into_axum_router()
        .reset_fallback();

    let authenticate = Authenticate(upstream.verifier.clone());
    let call_limits = CallLimits::new(config.limits);
    let quota_headers = QuotaHeaders::new(upstream.verifier.clone(), config.cookies);
    let report_fingerprint = ReportFingerprint(upstream.embedder.clone());
    let requests = context.requests.clone();
    let router = Router::new()
        .merge(http)
        .merge(grpc::routes(upstream).into_router())
        .merge(own)
        .fallback(routing::not_found)
        // The route is known inside the router only. These are one layer, because axum boxes each layer.
        .layer(
            ServiceBuilder::new()
                // Metrics, the span and the line of the access log.
                .layer(TelemetryLayer { requests, route: routing::route_of })
                // Adds the fingerprint of the model to the response.
                .layer(AroundLayer(report_fingerprint))
                // Verifies the Authorization header, for the layers and routes below.
                .layer(AroundLayer(authenticate))
                // Adds the state of the caller's quota to the response.
                .layer(AroundLayer(quota_headers))
                // Rejects requests that are malformed on every route.
                .layer(AroundLayer(WellFormed))
                // Limits the open calls of a user and of an address.
                .layer(AroundLayer(call_limits)),
        );

    // From the outermost layer to the innermost.
    let app = ServiceBuilder::new()
        // X-Forwarded-For becomes the one address of the client.
        .layer(AroundLayer(ClientAddress(config.trusted_proxies.clone())))
        // Answers preflight requests, and allows the configured origins.
        .layer(DetourLayer(Cors(config.cors_origins.layer())))
        .layer(AroundLayer(SecurityHeaders))
        // Translates gRPC-Web into gRPC.
        .layer(DetourLayer(GrpcWeb))
        .service(router);
    Ok(app)
}
