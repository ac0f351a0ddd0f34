//! Starts the embedder: loads the model, and serves gRPC until the shutdown.

use std::{sync::Arc, time::Instant};

use futures::{FutureExt, future::BoxFuture};
use muse_model::{
    model_dir::{ModelDir, ModelDirError},
    selection::Selection,
    tokenizer::{Tokenizer, TokenizerError},
};
use muse_proto::{
    Fingerprint,
    limits::{MAX_ITEM_BYTES, MAX_REQUEST_BYTES},
    v1::{
        GetModelResponse, embedder_service_server::EmbedderServiceServer,
        revocation_service_client::RevocationServiceClient,
    },
};
use muse_server::{
    ConfigError, ConnectionLimits, Listeners, ServiceContext, ServiceSettings, connection_limit, grpc,
    health::Health,
    notify,
    tls::{self, Acceptor},
};
use muse_telemetry::metrics::Metrics;
use muse_verifier::{Credential, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, codec::CompressionEncoding, service::interceptor::InterceptedService};
use tracing::{Level, info};

use crate::{
    activity::Activity,
    batcher::{Batcher, BatcherError, FlowKey},
    config::Config,
    fingerprint::{self, ReportFingerprint},
    limits::TokenLimits,
    memory::ReserveMemory,
    metrics::EmbedderMetrics,
    request_tokenizer::RequestTokenizer,
    service::{EmbedderApi, describe_model},
    stream::Streams,
    usage::{PendingUsage, UsageLayer, UsageReporter},
};

/// The names in `grpc.health.v1`.
const SERVICES: [&str; 2] = ["", "muse.v1.EmbedderService"];

/// Why the embedder could not start, or failed.
#[derive(Debug, thiserror::Error)]
pub enum EmbedderError {
    /// An environment variable of the trace exporter is invalid.
    #[error(transparent)]
    Traces(#[from] ConfigError),
    /// The model directory is incomplete or damaged.
    #[error(transparent)]
    ModelDir(#[from] ModelDirError),
    /// The SentencePiece model cannot be used.
    #[error("the model directory's tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Batcher(#[from] BatcherError),
    /// The server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Loads and warms the model, then serves on the public listener until `shutdown` is cancelled and
/// the calls in flight have ended.
///
/// It is ready, in `grpc.health.v1`, on the admin port and to its supervisor, when the revocation
/// list is complete. A long queue does not change that.
///
/// # Errors
///
/// If the model directory is not valid, the model does not run, or the server fails.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), EmbedderError>> {
    // Boxed, or it would be compiled again in each program and test that awaits it.
    serve(config, listeners, shutdown).boxed()
}

async fn serve(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), EmbedderError> {
    let settings = ServiceSettings {
        name: "muse-embedder",
        services: &SERVICES,
        access_level: Level::DEBUG,
        shutdown: config.shutdown,
        traces: &config.traces,
        client_tls: config.client_tls.as_ref(),
    };
    let (context, listener) = ServiceContext::start(settings, listeners, shutdown)?;
    let (metrics, shutdown) = (context.metrics.clone(), context.shutdown.clone());
    let acceptor = Acceptor::new(config.server_tls.as_ref());
    let (verifier, auth) = config.auth.follow(&context.connector, shutdown.closing.clone());
    verifier.register_metrics(&metrics);
    let (stream_verifier, closing) = (verifier.clone(), shutdown.closing.clone());
    let loaded = tokio::task::spawn_blocking(move || load(&config, &metrics, stream_verifier, closing));
    let Loaded { api, batcher, limits, activity, fingerprint } =
        loaded.await.map_err(BatcherError::from)??;

    tokio::spawn(report_when_synced(verifier.clone(), context.health.clone(), shutdown.announced.clone()));
    let server = |max_message_bytes| {
        EmbedderServiceServer::from_arc(Arc::clone(&api))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(max_message_bytes)
            .max_encoding_message_size(usize::MAX)
    };
    let closing_intervals = activity.clone().close_intervals(batcher.queue_reader());
    let closing = shutdown.closing.clone();
    tokio::spawn(async move { closing.run_until_cancelled(closing_intervals).await });
    let (unary, streaming) = (server(MAX_REQUEST_BYTES), server(MAX_ITEM_BYTES));
    let service = ReserveMemory::new(unary, streaming, batcher, limits);
    let usage = PendingUsage::new(&context.metrics);
    let auth = RevocationServiceClient::new(auth);
    let reporter = UsageReporter::start(usage.clone(), &context.metrics, move |report| {
        let mut auth = auth.clone();
        async move { auth.report_usage(report).await.map(drop) }
    });
    // A caller whose quota is exhausted must not use memory, nor one without a token: that is the
    // outermost layer.
    let service = UsageLayer::new(service, usage, activity, verifier.clone());
    let required_fingerprint = fingerprint.clone();
    let service = InterceptedService::new(service, move |mut call: Request<()>| {
        let principal = verifier.authenticate(call.metadata().as_ref(), Credential::AccessTokenOrKey)?;
        principal.record(call.extensions());
        // After the authentication, and before anything is read.
        fingerprint::check(call.metadata(), &required_fingerprint)?;
        // Calls with an API key share the queue of its owner.
        call.extensions_mut().insert(FlowKey::from(&principal));
        call.extensions_mut().insert(principal);
        Ok::<_, Status>(call)
    });
    let incoming = tls::incoming(listener, acceptor, ConnectionLimits::total(connection_limit()));
    let router = grpc::server(context.requests.clone())
        // The gateway learns the fingerprint from the health checks.
        .add_service(ReportFingerprint::new(context.health_service.clone(), &fingerprint))
        .add_service(ReportFingerprint::new(service, &fingerprint));
    let served = grpc::serve(router, incoming, context.health.clone(), shutdown).await;
    reporter.finish().await;
    context.finish().await;
    Ok(served?)
}

async fn report_when_synced(verifier: Verifier, health: Health, shutdown: CancellationToken) {
    let synced = async {
        verifier.wait_until_synced().await;
        health.report(true);
        info!("ready");
        notify::ready();
    };
    shutdown.run_until_cancelled(synced).await;
}

/// A warm model, and the service over it.
struct Loaded {
    api: Arc<EmbedderApi>,
    batcher: Batcher,
    limits: TokenLimits,
    activity: Activity,
    fingerprint: Fingerprint,
}

/// Loads the model. Streams end when `verifier` refuses their token, and at `shutdown`.
fn load(
    config: &Config,
    metrics: &Metrics,
    verifier: Verifier,
    shutdown: CancellationToken,
) -> Result<Loaded, EmbedderError> {
    let started = Instant::now();
    let Config { device, batching, .. } = *config;
    let directory = ModelDir::open(&config.model_dir)?;
    let Selection { model, reason } = batching.select(&directory, device, config.precision)?;
    let (precision, fingerprint) = (model.precision(), fingerprint::of(&model));
    info!("running in {precision}: {reason}");
    let limits = TokenLimits::for_requests_of(batching.largest_request());
    let description = describe_model(&model, &fingerprint, limits);
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes())?;
    let embedder_metrics = EmbedderMetrics::new(metrics);
    let batcher = Batcher::start(model, batching, &embedder_metrics)?;
    batcher.register_metrics(metrics);
    register_model_info(metrics, &description);
    info!(
        model = %config.model_dir.display(),
        %precision,
        %fingerprint,
        device = description.device,
        threads = batching.threads,
        kernel = description.kernel,
        ready_after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "model loaded and warm"
    );
    let tokenizer =
        RequestTokenizer::new(tokenizer, limits, config.tokenizer_threads, embedder_metrics.tokenize);
    let read_timeout = config.stream_read_timeout;
    let streams =
        Streams::new(tokenizer.clone(), batcher.clone(), batching, read_timeout, verifier, shutdown);
    let activity = Activity::new();
    let api = Arc::new(EmbedderApi::new(tokenizer, batcher.clone(), streams, description, activity.clone()));
    Ok(Loaded { api, batcher, limits, activity, fingerprint })
}

fn register_model_info(metrics: &Metrics, model: &GetModelResponse) {
    metrics.info(
        "muse_model_info",
        "The model and its device; always 1.",
        &[
            ("name", &model.name),
            ("version", &model.version),
            ("precision", &model.precision),
            ("device", &model.device),
            ("fingerprint", &model.fingerprint),
        ],
    );
}
