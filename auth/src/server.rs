//! The life of the service.

use std::{sync::Arc, time::Duration};

use muse_chassis::{grpc, notify};
use muse_proto::v1::{
    auth_service_server::AuthServiceServer, revocation_service_server::RevocationServiceServer,
};
use muse_verifier::Verifier;
use tokio::{net::TcpListener, time::interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    AuthError, Config, Users,
    auth_service::AuthService,
    clock, first_start,
    keys::KeyPair,
    passwords::Checker,
    revocation_service::{News, RevocationService},
    store::Store,
    tokens::Signer,
};

/// The names in `grpc.health.v1`; the empty one stands for the whole server.
const SERVICES: &[&str] = &["", "muse.v1.AuthService", "muse.v1.RevocationService"];
const BETWEEN_PRUNINGS: Duration = Duration::from_secs(3600);
/// Far more than a name, a password and a token need.
const LARGEST_REQUEST: usize = 64 * 1024;
const LARGEST_HEADERS: u32 = 64 * 1024;
/// A gateway's users share its connection.
const STREAMS_PER_CONNECTION: u32 = 1024;

/// Serves on `listener` until `shutdown`, and then until the calls that have begun are answered.
///
/// # Errors
///
/// If the database cannot be opened, which is found out before anything is served, or the server fails.
pub async fn run(
    config: Config,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), AuthError> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let store = Store::open(&config.database).await?;
    let served = serve(&config, &store, listener, shutdown).await;
    store.close().await;
    served
}

async fn serve(
    config: &Config,
    store: &Store,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), AuthError> {
    store.prune_revocations(clock::now()).await?;
    first_start::ensure_a_user(config, &Users::new(store.clone())).await?;

    let keys = KeyPair::open(config, store).await?;
    let public_keys = vec![keys.jwk()];
    let verifier = Verifier::with_keys(&public_keys);
    verifier.revoke_all(&store.revocations_after(0, clock::now()).await?.revocations);
    info!(kid = keys.kid(), derived = config.secret.is_some(), "the signing key is there");

    let news = News::new();
    let auth = AuthService {
        store: store.clone(),
        passwords: Checker::new(),
        signer: Arc::new(Signer::new(&keys, config)),
        verifier,
        public_keys,
        news: news.clone(),
    };
    let revocations = RevocationService { store: store.clone(), news, shutdown: shutdown.clone() };
    let auth = AuthServiceServer::new(auth).max_decoding_message_size(LARGEST_REQUEST);
    let revocations = RevocationServiceServer::new(revocations).max_decoding_message_size(LARGEST_REQUEST);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<AuthServiceServer<AuthService>>().await;
    health.set_serving::<RevocationServiceServer<RevocationService>>().await;

    let router = grpc::server()
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_header_list_size(LARGEST_HEADERS)
        .add_service(auth)
        .add_service(revocations)
        .add_service(health_service);
    notify::ready();
    tokio::select! {
        served = grpc::serve(router, listener, health, SERVICES, shutdown) => Ok(served?),
        never = prune_now_and_then(store) => match never {},
    }
}

async fn prune_now_and_then(store: &Store) -> std::convert::Infallible {
    let mut ticks = interval(BETWEEN_PRUNINGS);
    // The first tick is at once, and was done at the start.
    ticks.tick().await;
    loop {
        ticks.tick().await;
        match store.prune_revocations(clock::now()).await {
            Ok(0) => (),
            Ok(forgotten) => info!(forgotten, "forgot revocations of tokens that have expired"),
            Err(failure) => warn!(%failure, "cannot prune the revocations, trying again in an hour"),
        }
    }
}
