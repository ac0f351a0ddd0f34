//! When the gateway is ready: it knows which tokens are revoked, and the embedder serves.

use std::time::Duration;

use muse_chassis::health::Health;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{info, warn};

use crate::upstream::Upstream;

/// The names in `grpc.health.v1`; the empty one stands for the whole gateway.
pub(crate) const SERVICES: [&str; 4] =
    ["", "muse.v1.AuthService", "muse.v1.EmbedderService", "muse.v1.UserService"];
const EMBEDDER: &str = "muse.v1.EmbedderService";
const BETWEEN_TRIES: Duration = Duration::from_millis(50);

/// Keeps the health service true until `shutdown`.
pub(crate) async fn watch(upstream: Upstream, health: Health, shutdown: CancellationToken) {
    let followed = async {
        upstream.verifier.wait_until_synced().await;
        let mut serving = false;
        loop {
            let ended = follow_embedder(&upstream, &health, &mut serving).await;
            if serving {
                let reason = ended.err().unwrap_or_else(|| Status::unavailable("the stream ended"));
                warn!(reason = reason.message(), "the embedder is out of reach");
                serving = false;
                health.report(false);
            }
            tokio::time::sleep(BETWEEN_TRIES).await;
        }
    };
    shutdown.run_until_cancelled(followed).await;
    health.stop();
}

async fn follow_embedder(upstream: &Upstream, health: &Health, serving: &mut bool) -> Result<(), Status> {
    let request = HealthCheckRequest { service: EMBEDDER.to_owned() };
    let mut reports = HealthClient::new(upstream.embedder.clone()).watch(request).await?.into_inner();
    while let Some(latest) = reports.message().await? {
        *serving = latest.status() == ServingStatus::Serving;
        health.report(*serving);
        if *serving {
            info!("ready");
            muse_chassis::notify::ready();
        }
    }
    Ok(())
}
