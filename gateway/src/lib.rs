//! The gateway of MUSE as Service: one port for REST and gRPC.
//!
//! It checks tokens and translates; what a token or a vector is made of is the business of the services behind it.

#![forbid(unsafe_code)]

mod config;
mod passthrough;
mod readiness;
mod rest;
mod upstream;

use std::io;

use axum::Router;
use muse_chassis::grpc::out_of_grace;
use muse_proto::FILE_DESCRIPTOR_SET;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTOR_SET;

pub use config::Config;
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
    let (health, health_service) = readiness::reporter().await;
    tokio::spawn(readiness::watch(upstream.clone(), health, shutdown.clone()));

    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(HEALTH_DESCRIPTOR_SET)
            .with_service_name("muse.v1.AuthService")
            .with_service_name("muse.v1.EmbedderService")
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
        .fallback(rest::not_found);
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
    let server = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        ended = server => Ok(ended?),
        () = out_of_grace(shutdown) => Ok(()),
    }
}
