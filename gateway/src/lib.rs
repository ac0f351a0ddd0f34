//! The gateway of MUSE as Service: one port for REST and gRPC.
//!
//! It verifies tokens, limits clients, translates HTTP into gRPC, and balances calls over the embedders. [`app`] lists the layers of
//! a request.

#![forbid(unsafe_code)]

mod api;
mod app;
mod auth;
mod config;
mod cookies;
mod middleware;
mod page;
mod readiness;
mod server;
mod upstream;

use futures::{FutureExt, future::BoxFuture};
pub use muse_balancer::{Resolver, SystemResolver};
use muse_server::{ConfigError, ConnectionLimits, Listeners, ServiceContext, ServiceSettings, tls::Acceptor};
use tokio_util::sync::CancellationToken;
use tracing::Level;

pub use config::{Args, ClientLimits, Config, LimitArgs};
pub use cookies::Cookies;
pub use middleware::{AllowedOrigins, TrustedProxies};
pub use page::Page;
use readiness::SERVICES;
use upstream::Upstream;

/// Why the gateway could not start.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// An option is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The descriptor set is unusable.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] prost::DecodeError),
}

/// Serves on the public listener until `shutdown` is cancelled and the requests in flight are served.
///
/// The gateway listens at once but reports itself ready, in `grpc.health.v1` and to its supervisor, only when it
/// knows the revoked tokens and an embedder with the served model serves.
///
/// # Errors
///
/// If the server cannot start.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), GatewayError>> {
    run_with_resolver(config, Box::new(SystemResolver::default()), listeners, shutdown)
}

/// As [`run`], with another resolver of the names of embedders.
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
    // Without the box it would be compiled again in each program and test that awaits it.
    serve(config, resolver, listeners, shutdown).boxed()
}

async fn serve(
    config: Config,
    resolver: Box<dyn Resolver>,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    let settings = ServiceSettings {
        name: "muse-gateway",
        services: &SERVICES,
        access_level: Level::INFO,
        shutdown: config.shutdown,
        traces: &config.traces,
        client_tls: config.client_tls.as_ref(),
    };
    let (context, listener) = ServiceContext::start(settings, listeners, shutdown)?;
    let shutdown = context.shutdown.clone();
    let upstream = Upstream::connect(&config, resolver, &context.connector, shutdown.closing.clone());
    upstream.verifier.register_metrics(&context.metrics);
    upstream.embedder.register_metrics(&context.metrics);
    let balancer = upstream.embedder.clone();
    context.health.describe_with(move || balancer.explanation());
    tokio::spawn(readiness::watch(upstream.clone(), context.health.clone(), shutdown.announced.clone()));

    let app = app::app(&config, upstream, &context)?;
    let ClientLimits { connections, connections_per_address, send_timeout, .. } = config.limits;
    let proxies = config.trusted_proxies.clone();
    let connections =
        ConnectionLimits::new(connections, connections_per_address, move |address| proxies.contain(address));
    let limits = server::Limits { connections, send_timeout };
    server::serve(listener, Acceptor::new(config.server_tls.as_ref()), app, limits, shutdown).await;
    context.finish().await;
    Ok(())
}
