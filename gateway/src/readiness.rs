//! When the gateway is ready: it knows which tokens are revoked, and the embedder serves.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest,
        health_check_response::ServingStatus as Reported,
        health_client::HealthClient,
        health_server::{Health, HealthServer},
    },
    server::HealthReporter,
};
use tracing::{info, warn};

use crate::upstream::Upstream;

/// The names in `grpc.health.v1`; the empty one stands for the whole gateway.
const SERVICES: [&str; 3] = ["", "muse.v1.AuthService", "muse.v1.EmbedderService"];
const EMBEDDER: &str = "muse.v1.EmbedderService";
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// A health service that says "not serving", where tonic's own starts with "serving".
pub(crate) async fn reporter() -> (HealthReporter, HealthServer<impl Health>) {
    let (health, service) = tonic_health::server::health_reporter();
    report(&health, false).await;
    (health, service)
}

/// Keeps the health service true until `shutdown`.
pub(crate) async fn watch(upstream: Upstream, mut health: HealthReporter, shutdown: CancellationToken) {
    let followed = async {
        upstream.verifier.wait_until_synced().await;
        let mut serving = false;
        loop {
            let ended = follow_embedder(&upstream, &health, &mut serving).await;
            if serving {
                let reason = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
                warn!(reason = reason.message(), "the embedder is out of reach");
                serving = false;
                report(&health, false).await;
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    };
    shutdown.run_until_cancelled(followed).await;
    // Ends the streams of those who watch, which would hold the shutdown up.
    for service in SERVICES {
        health.clear_service_status(service).await;
    }
}

async fn follow_embedder(
    upstream: &Upstream,
    health: &HealthReporter,
    serving: &mut bool,
) -> Result<(), Status> {
    let request = HealthCheckRequest { service: EMBEDDER.to_owned() };
    let mut reports = HealthClient::new(upstream.embedder.clone()).watch(request).await?.into_inner();
    while let Some(latest) = reports.message().await? {
        *serving = latest.status() == Reported::Serving;
        report(health, *serving).await;
        if *serving {
            info!("ready");
            muse_chassis::notify::ready();
        }
    }
    Ok(())
}

async fn report(health: &HealthReporter, serving: bool) {
    let status = if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    for service in SERVICES {
        health.set_service_status(service, status).await;
    }
}
