//! Follows what a replica says of itself in `grpc.health.v1`.

use std::{sync::Arc, time::Duration};

use futures::FutureExt;
use muse_chassis::backoff::{Backoff, reason};
use tokio::time::Instant;
use tonic::Status;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tracing::{debug, info, warn};

use super::{
    Replicas,
    replica::{Replica, State},
};

/// What is asked for.
const SERVICE: &str = "muse.v1.EmbedderService";
/// The wait after a failure until it is asked again; each further one is twice as long.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// After so long without a failure a replica is as good as any other.
const SETTLED: Duration = Duration::from_secs(10);

/// Keeps the state of a replica true, for ever.
pub(super) async fn follow(replica: Arc<Replica>, replicas: Replicas) {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    loop {
        let began = Instant::now();
        let mut told = State::Unknown;
        let ended = tokio::select! {
            ended = listen(&replica, &replicas, &mut told) => ended,
            () = replica.suspected.notified() => Err(Status::unavailable("a call failed")),
        };
        let ended = ended.err().unwrap_or_else(|| Status::unavailable("it ended the report"));
        let (address, reason) = (replica.address, reason(&ended));
        match replica.state() {
            State::Away if told != State::Serving => debug!(%address, reason, "an embedder is still away"),
            _ => warn!(%address, reason, "an embedder is away"),
        }
        replica.set(State::Away);
        replicas.tell();
        replicas.look_again();
        if told == State::Serving && began.elapsed() > SETTLED {
            backoff.reset();
        }
        backoff.wait().await;
        // What failed before it was asked again is no news.
        let _ = replica.suspected.notified().now_or_never();
    }
}

/// Applies what the replica reports until it breaks off.
async fn listen(replica: &Replica, replicas: &Replicas, told: &mut State) -> Result<(), Status> {
    let request = HealthCheckRequest { service: SERVICE.to_owned() };
    let mut reports = HealthClient::new(replica.channel.clone()).watch(request).await?.into_inner();
    while let Some(report) = reports.message().await? {
        let state = match report.status() {
            ServingStatus::Serving => State::Serving,
            _ => State::Away,
        };
        let address = replica.address;
        match state {
            _ if state == replica.state() => (),
            State::Serving => info!(%address, "an embedder serves"),
            _ => info!(%address, "an embedder does not serve"),
        }
        *told = state;
        replica.set(state);
        replicas.tell();
    }
    Ok(())
}
