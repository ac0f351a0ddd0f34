//! The parts that each service sets up in the same way before it serves.

use muse_telemetry::{metrics::Metrics, request_telemetry::RequestTelemetry, trace::Traces};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::Level;

use crate::{
    ConfigError, Listeners, Shutdown, ShutdownArgs, TraceArgs,
    admin::{self, AdminPort},
    health::{self, Health},
    tls::{ClientTls, Connector},
};

/// The parts that all services have in common. The admin port serves until this is dropped.
#[derive(Debug)]
pub struct ServiceContext {
    /// The state that `grpc.health.v1` and the admin port report: not serving at first.
    pub health: Health,
    /// The service of `grpc.health.v1`.
    pub health_service: health::Service,
    /// The metrics that the admin port serves.
    pub metrics: Metrics,
    /// Connects to the other services.
    pub connector: Connector,
    /// The telemetry of the requests of the public port.
    pub requests: RequestTelemetry,
    /// The progress of the shutdown.
    pub shutdown: Shutdown,
    traces: Traces,
    _admin: admin::Server,
}

/// How [`ServiceContext::start`] sets up a service.
#[derive(Debug, Clone, Copy)]
pub struct ServiceSettings<'a> {
    /// The name in metrics and traces.
    pub name: &'static str,
    /// The names in `grpc.health.v1`; the empty one stands for the whole server.
    pub services: &'static [&'static str],
    /// The level of the access log.
    pub access_level: Level,
    /// The options of the shutdown.
    pub shutdown: ShutdownArgs,
    /// The options of traces.
    pub traces: &'a TraceArgs,
    /// TLS of connections to other services.
    pub client_tls: Option<&'a ClientTls>,
}

impl ServiceContext {
    /// Starts the admin port and the telemetry of a service, within an async runtime. Also returns
    /// the listener of the public port.
    ///
    /// # Errors
    ///
    /// If an environment variable of the exporter of traces is invalid.
    pub fn start(
        settings: ServiceSettings<'_>,
        listeners: Listeners,
        shutdown: CancellationToken,
    ) -> Result<(Self, TcpListener), ConfigError> {
        let ServiceSettings { name, services, access_level, traces, client_tls, .. } = settings;
        let shutdown = settings.shutdown.after(shutdown);
        let (health, health_service) = health::not_serving(services);
        let metrics = Metrics::of(name);
        let admin = AdminPort::new(health.clone(), metrics.clone()).serve(listeners.admin);
        let connector = Connector::new(client_tls);
        let traces = traces.start(name, &connector)?;
        let requests = RequestTelemetry::new(&metrics, traces.clone(), access_level);
        let context =
            Self { health, health_service, metrics, connector, requests, shutdown, traces, _admin: admin };
        Ok((context, listeners.public))
    }

    /// Exports the last traces.
    pub async fn finish(self) {
        self.traces.finish().await;
    }
}
