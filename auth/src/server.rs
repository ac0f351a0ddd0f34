//! Starts the service, serves until the shutdown, and runs the periodic tasks.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future::BoxFuture};
use muse_proto::{
    limits::MAX_AUTH_REQUEST_BYTES,
    v1::{
        auth_service_server::AuthServiceServer, key_service_server::KeyServiceServer,
        revocation_service_server::RevocationServiceServer, usage_service_server::UsageServiceServer,
        user_service_server::UserServiceServer,
    },
};
use muse_server::{
    ConnectionLimits, Listeners, ServiceContext, ServiceSettings, connection_limit, grpc, notify,
    tls::{self, Acceptor},
};
use muse_verifier::Verifier;
use tokio::{net::TcpListener, time::interval};
use tokio_util::sync::CancellationToken;
use tonic::codec::CompressionEncoding;
use tracing::{Level, warn};

use crate::{
    ApiKeys, AuthError, Config, Users,
    api::{AuthService, KeyService, RevocationService, UsageService, UserService},
    authentication::{LoginMetrics, LoginThrottle, PasswordAuthenticator, TokenAuthenticator},
    bootstrap, clock,
    error::one_line,
    keys::{self, KeyringReceiver},
    passwords::PasswordHashPool,
    pruner::Pruner,
    store::{MissingFile, Store},
    tokens::TokenSigner,
    usage::Usage,
};

/// The services of `grpc.health.v1`; the empty name is the whole server.
const SERVICES: &[&str] = &[
    "",
    "muse.v1.AuthService",
    "muse.v1.KeyService",
    "muse.v1.RevocationService",
    "muse.v1.UsageService",
    "muse.v1.UserService",
];
/// The longest time for which a change is only in SQLite's write-ahead log.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(60);

/// Serves on the public listener until `shutdown`, then until the calls in flight have ended.
///
/// # Errors
///
/// If the database cannot be opened, which happens before anything is served, or the server fails.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), AuthError>> {
    // Boxed, otherwise each program and test that awaits it compiles it again.
    open_and_serve(config, listeners, shutdown).boxed()
}

async fn open_and_serve(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), AuthError> {
    for warning in &config.warnings {
        warn!("{warning}");
    }
    let settings = ServiceSettings {
        name: "muse-auth",
        services: SERVICES,
        access_level: Level::DEBUG,
        shutdown: config.shutdown,
        traces: &config.traces,
        client_tls: config.collector_tls.as_ref(),
    };
    let (context, listener) = ServiceContext::start(settings, listeners, shutdown)?;
    let store = Store::open(&config.database, MissingFile::Create).await?;
    let served = serve(&config, &store, listener, &context).await;
    store.close().await;
    context.finish().await;
    served
}

async fn serve(
    config: &Config,
    store: &Store,
    listener: TcpListener,
    context: &ServiceContext,
) -> Result<(), AuthError> {
    let throttle = LoginThrottle::new(store.clone());
    let hash_pool = PasswordHashPool::new(config.hash_threads, config.cost)?;
    hash_pool.register_metrics(&context.metrics);
    let users = Users::new(store.clone(), hash_pool.clone(), config.exposed);
    bootstrap::create_first_user(config, &users).await?;
    bootstrap::reject_default_password(config, store, &hash_pool).await?;

    let all_keys = keys::open(store, config).await?;
    let keys = all_keys.subscribe();
    let pruner = Pruner {
        store: store.clone(),
        throttle: throttle.clone(),
        keys: keys.clone(),
        usage: Usage::new(store.clone()),
        usage_retention_days: config.usage_retention_days,
    };
    pruner.prune().await?;
    let verifier = Verifier::with_keys(&keys.borrow().published(clock::now()));

    let tokens = TokenAuthenticator { store: store.clone(), keys: keys.clone(), verifier: verifier.clone() };
    let passwords = PasswordAuthenticator {
        store: store.clone(),
        hash_pool,
        throttle: throttle.clone(),
        metrics: LoginMetrics::new(&context.metrics),
    };
    let api_keys = ApiKeys::new(store.clone());
    let auth = AuthService {
        passwords: passwords.clone(),
        tokens: tokens.clone(),
        users: users.clone(),
        signer: Arc::new(TokenSigner::new(keys.clone(), config)),
        refresh_rotation: config.refresh_rotation,
    };
    let usage = Usage::new(store.clone());
    let revocations = RevocationService {
        store: store.clone(),
        usage: usage.clone(),
        log: store.revocation_log().await?,
        keys: keys.clone(),
        shutdown: context.shutdown.closing.clone(),
    };
    let router = grpc::server(context.requests.clone())
        .add_service(
            AuthServiceServer::new(auth)
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_AUTH_REQUEST_BYTES),
        )
        .add_service(
            KeyServiceServer::new(KeyService { tokens: tokens.clone(), keys: api_keys.clone() })
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_AUTH_REQUEST_BYTES),
        )
        .add_service(
            UsageServiceServer::new(UsageService { tokens: tokens.clone(), keys: api_keys, usage })
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_AUTH_REQUEST_BYTES),
        )
        .add_service(
            UserServiceServer::new(UserService { passwords, tokens, users })
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(MAX_AUTH_REQUEST_BYTES),
        )
        .add_service(
            RevocationServiceServer::new(revocations).max_decoding_message_size(MAX_AUTH_REQUEST_BYTES),
        );
    let router = router.add_service(context.health_service.clone());
    context.health.report(true);
    notify::ready();
    let incoming = tls::incoming(
        listener,
        Acceptor::new(config.tls.as_ref()),
        ConnectionLimits::total(connection_limit()),
    );

    tokio::select! {
        served = grpc::serve(router, incoming, context.health.clone(), context.shutdown.clone()) => Ok(served?),
        never = store.watch() => match never {},
        () = keys::follow(store, config, all_keys) => Ok(()),
        () = update_verifier(keys.clone(), &verifier) => Ok(()),
        never = pruner.prune_periodically() => match never {},
        never = checkpoint_periodically(store) => match never {},
    }
}

/// Updates the keys of the service's own verifier whenever the published ones change.
async fn update_verifier(mut keys: KeyringReceiver, verifier: &Verifier) {
    while keys.changed().await.is_ok() {
        let published = keys.borrow_and_update().published(clock::now());
        verifier.replace_keys(&published);
    }
}

async fn checkpoint_periodically(store: &Store) -> std::convert::Infallible {
    let mut ticks = interval(CHECKPOINT_INTERVAL);
    loop {
        ticks.tick().await;
        if let Err(failure) = store.checkpoint().await {
            warn!(cause = one_line(&failure), "cannot move the write-ahead log into the database");
        }
    }
}
