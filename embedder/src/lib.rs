//! The embedder of MUSE as Service: text in, tokens or 512-dimensional unit vectors out, over gRPC.
//!
//! A sentence's way: the caller's token is checked, [`service`] checks the request against the [`limits`], the
//! [`tokenizer`](muse_model::tokenizer) turns it into ids, the [`batcher`] queues it and runs it, with whatever else is
//! waiting, through the [model](muse_model::inference).

#![deny(unsafe_code)]

pub mod batcher;
pub mod config;
pub mod dimensions;
pub mod limits;
mod memory;
pub mod metrics;
mod outbox;
mod request_tokenizer;
pub mod service;
mod stream;
mod stream_limit;
mod timing;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use muse_model::{
    device::{self, DeviceChoice, DeviceError},
    inference,
    model_dir::{ModelDir, ModelDirError},
    tokenizer::{Tokenizer, TokenizerError},
};
use muse_proto::{limits::MAX_ITEM_BYTES, v1::embedder_service_server::EmbedderServiceServer};
use muse_server::{
    ConfigError, Listeners, ServiceContext, ServiceSettings, grpc,
    health::Health,
    notify,
    tls::{self, Acceptor},
};
use muse_telemetry::metrics::Metrics;
use muse_verifier::{TokenKind, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, codec::CompressionEncoding, service::interceptor::InterceptedService};
use tracing::{Level, info};

use batcher::{Batcher, BatcherError, UserName};
pub use config::Config;
use limits::Limits;
use memory::ReserveMemory;
use metrics::EmbedderMetrics;
use request_tokenizer::RequestTokenizer;
use service::EmbedderApi;

/// The names in `grpc.health.v1`.
const SERVICES: [&str; 2] = ["", "muse.v1.EmbedderService"];

/// Why the embedder could not start or go on.
#[derive(Debug, thiserror::Error)]
pub enum EmbedderError {
    /// An option cannot be.
    #[error(transparent)]
    Option(#[from] ConfigError),
    /// The device that was asked for cannot be used.
    #[error("--device {0}: {1}")]
    Device(DeviceChoice, #[source] DeviceError),
    /// The model directory is incomplete or damaged.
    #[error(transparent)]
    ModelDir(#[from] ModelDirError),
    /// The tokenizer's model cannot be used.
    #[error("the model directory's tokenizer: {0}")]
    Tokenizer(#[from] TokenizerError),
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Batcher(#[from] BatcherError),
    /// The server failed.
    #[error("the gRPC server failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// Loads and warms the model, then serves on the public listener until `shutdown` is cancelled and the calls in flight are
/// answered.
///
/// It reports itself ready, in `grpc.health.v1` and to its supervisor, only when it knows the revoked tokens; the private
/// port says so, too. A long queue does not change that.
///
/// # Errors
///
/// If the device cannot be used, the model directory does not hold a sound model, or the server fails.
pub fn run(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> BoxFuture<'static, Result<(), EmbedderError>> {
    // Or it would be compiled once more in each program and test that awaits it.
    serve(config, listeners, shutdown).boxed()
}

async fn serve(
    config: Config,
    listeners: Listeners,
    shutdown: CancellationToken,
) -> Result<(), EmbedderError> {
    let (server_tls, client_tls) = config.tls()?;
    let settings = ServiceSettings {
        name: "muse-embedder",
        services: &SERVICES,
        access_level: Level::DEBUG,
        shutdown: config.shutdown,
        traces: &config.traces,
        client_tls: client_tls.as_ref(),
    };
    let (context, listener) = ServiceContext::start(settings, listeners, shutdown)?;
    let (metrics, shutdown) = (context.metrics.clone(), context.shutdown.clone());
    let (verifier, _) = config.auth.follow(&context.connector, shutdown.closing.clone());
    verifier.register_metrics(&metrics);
    let (stream_verifier, stopping) = (verifier.clone(), shutdown.closing.clone());
    let loaded = tokio::task::spawn_blocking(move || load(&config, &metrics, stream_verifier, stopping));
    let embedder = loaded.await.map_err(BatcherError::from)??;

    tokio::spawn(report_when_synced(verifier.clone(), context.health.clone(), shutdown.announced.clone()));
    let limits = embedder.limits();
    let embedder = Arc::new(embedder);
    let server = |largest| {
        EmbedderServiceServer::from_arc(Arc::clone(&embedder))
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(largest)
            .max_encoding_message_size(usize::MAX)
    };
    let (unary, streaming) = (server(limits.max_request_bytes as usize), server(MAX_ITEM_BYTES));
    let service = ReserveMemory::new(unary, streaming, embedder.batcher(), limits);
    // Before a message is decoded: who may not call does not get to use memory either.
    let service = InterceptedService::new(service, move |mut call: Request<()>| {
        let claims = verifier.authorize(call.metadata().as_ref(), Some(TokenKind::Access))?;
        claims.record(call.extensions());
        call.extensions_mut().insert(UserName::from(claims.sub.as_str()));
        Ok::<_, Status>(call)
    });
    let incoming = tls::incoming(listener, Acceptor::new(server_tls.as_ref()));
    let router = grpc::server(context.requests.clone())
        .add_service(context.health_service.clone())
        .add_service(service);
    let served = grpc::serve(router, incoming, context.health.clone(), shutdown).await;
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

fn load(
    config: &Config,
    metrics: &Metrics,
    verifier: Verifier,
    shutdown: CancellationToken,
) -> Result<EmbedderApi, EmbedderError> {
    let started = std::time::Instant::now();
    let device = config.resolve_device()?;
    let directory = ModelDir::open(&config.model_dir)?;
    let tokenizer = Tokenizer::from_bytes(directory.tokenizer_bytes())?;
    let manifest = directory.manifest().clone();
    let batching = config.batching(device);
    let embedder_metrics = EmbedderMetrics::new(metrics);
    let batcher = Batcher::start(&directory, device, batching, &embedder_metrics)?;
    batcher.register_metrics(metrics);
    metrics.info(
        "muse_model_info",
        "The model and where it runs; always 1.",
        &[
            ("name", &manifest.name),
            ("version", &manifest.version),
            ("precision", &manifest.precision),
            ("device", &device::name(device)),
        ],
    );
    info!(
        model = %config.model_dir.display(),
        precision = %manifest.precision,
        device = device::name(device),
        threads = config.threads,
        kernel = inference::kernel(manifest.precision, device).unwrap_or("libtorch"),
        ready_after_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "model loaded and warm"
    );
    let limits = Limits::for_requests_of(batching.largest_request());
    let tokenizer =
        RequestTokenizer::new(tokenizer, limits, config.tokenizer_threads, embedder_metrics.tokenize);
    let read_timeout = config.stream_read_timeout();
    Ok(EmbedderApi::new(tokenizer, (batcher, batching), (manifest, device), read_timeout, verifier, shutdown))
}
