//! Readiness: the gateway is ready when it has the revocation list, and an embedder serves.

use muse_server::health::Health;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::upstream::Upstream;

/// The names in `grpc.health.v1`; the empty name is the whole gateway.
pub(crate) const SERVICES: [&str; 6] = [
    "",
    "muse.v1.AuthService",
    "muse.v1.EmbedderService",
    "muse.v1.KeyService",
    "muse.v1.UsageService",
    "muse.v1.UserService",
];

/// Updates the health service until `shutdown`.
pub(crate) async fn watch(upstream: Upstream, health: Health, shutdown: CancellationToken) {
    let updates = async {
        upstream.verifier.wait_until_synced().await;
        let mut embedders = upstream.embedder.serving();
        while embedders.wait_for(|serving| *serving).await.is_ok() {
            health.report(true);
            info!("ready");
            muse_server::notify::ready();
            // It cannot fail: the sender lives as long as `upstream`.
            let _ = embedders.wait_for(|serving| !serving).await;
            health.report(false);
            warn!("no embedder serves");
        }
    };
    shutdown.run_until_cancelled(updates).await;
    health.stop();
}
