//! Health checks of an endpoint, by `grpc.health.v1.Health/Watch`.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use muse_server::backoff::{Backoff, reason};
use tokio::time::Instant;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{debug, info, warn};

use super::{
    cluster::Cluster,
    endpoint::{EmbedderEndpoint, State},
    model::ModelIdentity,
};

/// The name of the embedder in the health service.
const SERVICE: &str = "muse.v1.EmbedderService";
/// The wait after a failure; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// The time without a failure after which the back-off is reset.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// Updates the state and the model of an endpoint by its health checks. It does not return.
pub(super) async fn watch(endpoint: Arc<EmbedderEndpoint>, cluster: Arc<Cluster>) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let started = Instant::now();
        let mut reported = State::Unknown;
        let ended = tokio::select! {
            ended = apply_reports(&endpoint, &cluster, &mut reported) => ended,
            () = endpoint.recheck.notified() => Err(Status::unavailable("a call failed")),
        };
        let ended = ended.err().unwrap_or_else(|| Status::unavailable("the health check ended"));
        let (address, reason) = (endpoint.address, reason(&ended));
        match endpoint.state() {
            State::Unavailable if reported != State::Serving => {
                debug!(%address, reason, "an embedder is still unavailable");
            }
            _ => warn!(%address, reason, "an embedder is unavailable"),
        }
        endpoint.set_unavailable();
        cluster.update();
        cluster.request_resolve();
        if reported == State::Serving && started.elapsed() > STABLE_AFTER {
            backoff.reset();
        }
        backoff.wait().await;
        // Failures before the next health check are already known.
        let _ = endpoint.recheck.notified().now_or_never();
    }
}

/// Applies the reports of the endpoint until they end.
async fn apply_reports(
    endpoint: &EmbedderEndpoint,
    cluster: &Cluster,
    reported: &mut State,
) -> Result<(), Status> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let response = HealthClient::new(endpoint.channel.clone()).watch(request).await?;
    let model = ModelIdentity::reported(response.metadata().as_ref());
    let mut reports = response.into_inner();
    while let Some(report) = reports.message().await? {
        let state = match report.status() {
            ServingStatus::Serving => State::Serving,
            _ => State::Unavailable,
        };
        let address = endpoint.address;
        match state {
            _ if state == endpoint.state() => (),
            State::Serving => info!(%address, "an embedder serves"),
            _ => info!(%address, "an embedder does not serve"),
        }
        *reported = state;
        endpoint.report(state, model.clone());
        cluster.update();
    }
    Ok(())
}
