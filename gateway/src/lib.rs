//! The gateway of MUSE as Service: one port for REST and gRPC.
//!
//! It checks tokens and translates; what a token or a vector is made of is the business of the services behind it.

#![forbid(unsafe_code)]

mod accept;
mod balancer;
mod client_address;
mod compression;
mod config;
mod cors;
mod grpc_proxy;
mod grpc_web;
mod http_response;
mod json_vectors;
mod message;
mod middleware;
mod openai;
mod openapi;
mod problem;
mod readiness;
mod reflection;
mod request;
mod response_memory;
mod rest;
mod routing;
mod security_headers;
mod server;
mod server_timing;
mod stream;
mod stream_shutdown;
mod upstream;

use axum::{Router, middleware::from_fn};
use futures::{FutureExt, future::BoxFuture};
use muse_chassis::{
    ConfigError, Listeners,
    admin::AdminPort,
    health,
    metrics::Metrics,
    request_telemetry::{RequestTelemetry, TelemetryLayer},
    tls::{Acceptor, Connector},
    trace::Traces,
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tower::ServiceBuilder;
use tracing::Level;

pub use balancer::{Resolver, SystemResolver};
use client_address::ClientAddress;
pub use client_address::TrustedProxies;
pub use config::{Config, LimitArgs};
pub use cors::AllowedOrigins;
use cors::Cors;
use grpc_web::GrpcWeb;
use middleware::{AroundLayer, CallLimits, DetourLayer, apply_deadline};
use readiness::SERVICES;
pub use rest::Cookies;
use routing::WellFormed;
use security_headers::SecurityHeaders;
use upstream::Upstream;

/// Why the gateway could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An option cannot be.
    #[error(transparent)]
    Option(#[from] ConfigError),
    /// The descriptor set is unusable.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] prost::DecodeError),
}

/// Serves on the public listener until `shutdown` is cancelled and the requests in flight are answered.
///
/// The gateway listens at once but reports itself ready, in `grpc.health.v1` and to its supervisor, only when it
/// knows the revoked tokens and an embedder serves.
///
/// # Errors
///
/// If the server fails.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), GatewayError>> {
    run_with_resolver(config, Box::new(SystemResolver::default()), listeners, shutdown)
}

/// As [`run`], and finds the embedders by a resolver of one's own.
///
/// # Errors
///
/// Those of [`run`].
pub fn run_with_resolver(
    config: Config,
    resolver: Box<dyn Resolver>,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), GatewayError>> {
    // Or it would be compiled once more in each program and test that awaits it.
    serve(config, resolver, listeners, shutdown).boxed()
}

async fn serve(
    config: Config,
    resolver: Box<dyn Resolver>,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    let shutdown = config.shutdown.after(shutdown);
    let (user_tls, peer_tls) = config.tls()?;
    let (health, health_service) = health::not_serving(&SERVICES);
    let metrics = Metrics::of("muse-gateway");
    let _private = AdminPort::new(health.clone(), metrics.clone()).serve(listeners.private);
    let connector = Connector::new(peer_tls.as_ref());
    let traces = Traces::new("muse-gateway", &config.traces, &connector)?;
    let requests = RequestTelemetry::new(&metrics, traces.clone(), Level::INFO);
    let upstream = Upstream::connect(&config, resolver, &connector, shutdown.closing.clone());
    upstream.verifier.register_metrics(&metrics);
    upstream.embedder.count(&metrics);
    tokio::spawn(readiness::watch(upstream.clone(), health, shutdown.announced.clone()));

    let own = Routes::new(health_service)
        .add_service(reflection::v1::server()?)
        .add_service(reflection::v1alpha::server()?)
        .into_axum_router();

    let rest = Router::new()
        .merge(rest::routes(upstream.clone(), config.cookies))
        .merge(openai::routes(upstream.clone()))
        .merge(openapi::routes())
        .layer(from_fn(apply_deadline))
        .layer(from_fn(compression::compress));
    let limits = &config.limits;
    let calls = CallLimits::new(
        upstream.verifier.clone(),
        limits.max_calls_per_user,
        limits.max_streams_per_user,
        limits.max_calls_per_address,
    );
    let router = Router::new()
        .merge(grpc_proxy::routes(upstream))
        .merge(rest)
        .merge(own.reset_fallback())
        .fallback(routing::not_found)
        // One layer of the router, which boxes each. Inside the router, because a request's route is known there.
        .layer(
            ServiceBuilder::new()
                .layer(TelemetryLayer { requests, route: routing::route_of })
                .layer(AroundLayer(WellFormed))
                .layer(AroundLayer(calls)),
        );
    let connections = config.connection_limits();
    let limits = server::Limits { connections, send_timeout: config.limits.send_timeout };
    // In the order in which a request passes them, before those of the router.
    let app = ServiceBuilder::new()
        .layer(AroundLayer(ClientAddress(config.trusted_proxies)))
        .layer(DetourLayer(Cors(config.cors_origins.layer())))
        .layer(AroundLayer(SecurityHeaders))
        .layer(DetourLayer(GrpcWeb))
        .service(router);
    server::serve(listeners.public, Acceptor::new(user_tls.as_ref()), app, limits, shutdown).await;
    traces.finish().await;
    Ok(())
}
