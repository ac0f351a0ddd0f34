//! The gateway of MUSE as Service: one port for REST and gRPC.
//!
//! It checks tokens and translates; what a token or a vector is made of is the business of the services behind it.

#![forbid(unsafe_code)]

mod client_address;
mod config;
mod passthrough;
mod readiness;
mod rest;
mod upstream;

use std::{io, net::SocketAddr};

use axum::{Router, middleware::map_request_with_state};
use muse_chassis::grpc::out_of_grace;
use muse_proto::FILE_DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTOR_SET;

pub use client_address::TrustedProxies;
pub use config::Config;
use readiness::SERVICES;
use upstream::Upstream;

/// Why the gateway could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// The descriptor set is unusable.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The server failed.
    #[error("the server failed: {0}")]
    Serve(#[from] io::Error),
}

/// Serves on `listener` until `shutdown` is cancelled and the requests in flight are answered.
///
/// The gateway listens at once but reports itself ready, in `grpc.health.v1` and to its supervisor, only when it
/// knows the revoked tokens and the embedder serves.
///
/// # Errors
///
/// If the server fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    let upstream = Upstream::connect(&config, shutdown.clone());
    let (health, health_service) = muse_chassis::health::not_serving(&SERVICES).await;
    tokio::spawn(readiness::watch(upstream.clone(), health, shutdown.clone()));

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(HEALTH_DESCRIPTOR_SET)
            .with_service_name("muse.v1.AuthService")
            .with_service_name("muse.v1.EmbedderService")
            .with_service_name("muse.v1.UserService")
            .with_service_name("grpc.health.v1.Health")
    };
    let own = Routes::new(health_service)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?)
        .into_axum_router();

    let router = Router::new()
        .merge(passthrough::routes(upstream.clone()))
        .merge(rest::routes(upstream))
        .merge(own.reset_fallback())
        .fallback(rest::not_found)
        .layer(map_request_with_state(config.trusted_proxies, client_address::name_client));
    serve(listener, router, shutdown).await
}

/// Ends when all connections have, or the grace is over.
async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    let listener = axum::serve::ListenerExt::tap_io(listener, |stream| {
        let _ = stream.set_nodelay(true);
    });
    let server = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>())
        .with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        ended = server => Ok(ended?),
        () = out_of_grace(shutdown) => Ok(()),
    }
}
