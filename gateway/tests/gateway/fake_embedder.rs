//! A fake embedder that returns configured responses, and may report a fingerprint.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, stream};
use http::HeaderValue;
use muse_proto::{
    Error, FINGERPRINT, Reason,
    v1::{
        EmbedRequest, EmbedResponse, EmbedStreamRequest, EmbedStreamResponse, Embedding, GetModelRequest,
        GetModelResponse, GetStatusRequest, GetStatusResponse, Limits, TokenizeRequest, TokenizeResponse,
        TokenizedSentence,
        embed_stream_response::Result as Outcome,
        embedder_service_server::{EmbedderService, EmbedderServiceServer},
    },
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{oneshot, watch},
};
use tonic::{Request, Response, Status, Streaming, transport::server::TcpIncoming};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::util::MapResponseLayer;

use crate::{
    bearing,
    harness::{Gateway, ReceivedMetadata, server, token},
};

const SERVICE: &str = "muse.v1.EmbedderService";

#[derive(Debug, Clone)]
pub(crate) enum Behavior {
    Vectors,
    /// As `Vectors`, but streams are neither read nor answered until their connections end.
    UnreadStreams,
    Error(Error),
    /// Waits for another behavior.
    Pending,
}

/// A sentence for which an embedder returns that the quota is exhausted.
pub(crate) const EXHAUSTING: &str = "exhausting";

type ReceivedCalls = Arc<Mutex<Vec<ReceivedMetadata>>>;

/// An embedder whose vectors contain its number.
#[derive(Clone)]
pub(crate) struct Embedder {
    pub(crate) address: SocketAddr,
    pub(crate) number: f32,
    fingerprint: Option<&'static str>,
    behavior: Arc<watch::Sender<Behavior>>,
    received: ReceivedCalls,
    /// Open streams that are unread.
    streams: Arc<AtomicUsize>,
    health: HealthReporter,
    /// Its shutdown breaks all connections, like the end of a process.
    runtime: Arc<Mutex<Option<Runtime>>>,
}

impl Embedder {
    /// Starts an embedder of a release without fingerprints, or one that reports this fingerprint.
    pub(crate) async fn start(address: &str, number: f32, fingerprint: Option<&'static str>) -> Self {
        Self::start_with(Arc::default(), address, number, fingerprint).await
    }

    /// Starts an embedder that appends the metadata of its calls to `received`.
    pub(crate) async fn start_with(
        received: ReceivedCalls,
        address: &str,
        number: f32,
        fingerprint: Option<&'static str>,
    ) -> Self {
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_service_status(SERVICE, ServingStatus::Serving).await;
        let mut embedder = Self {
            address: address.parse().unwrap(),
            number,
            fingerprint,
            behavior: Arc::new(watch::Sender::new(Behavior::Vectors)),
            received,
            streams: Arc::default(),
            health,
            runtime: Arc::default(),
        };
        let runtime = Runtime::new().unwrap();
        let service = embedder.clone();
        let (bound, is_bound) = oneshot::channel();
        runtime.spawn(async move {
            let listener = listener_at(service.address).await;
            bound.send(listener.local_addr().unwrap()).unwrap();
            let report = MapResponseLayer::new(move |mut response: http::Response<tonic::body::Body>| {
                if let Some(fingerprint) = fingerprint {
                    response.headers_mut().insert(FINGERPRINT, HeaderValue::from_static(fingerprint));
                }
                response
            });
            let router = server()
                .layer(report)
                .add_service(health_service)
                .add_service(EmbedderServiceServer::new(service));
            router.serve_with_incoming(TcpIncoming::from(listener)).await
        });
        *embedder.runtime.lock().unwrap() = Some(runtime);
        embedder.address = is_bound.await.unwrap();
        embedder
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends it without an announcement.
    pub(crate) fn kill(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap().take() {
            runtime.shutdown_background();
        }
    }

    /// Starts another embedder on the address of this one, which was killed.
    pub(crate) async fn replace(&self, fingerprint: Option<&'static str>) -> Self {
        Self::start(&self.address.to_string(), self.number, fingerprint).await
    }

    /// Announces the shutdown: the health service reports that it does not serve.
    pub(crate) async fn announce_shutdown(&self) {
        self.health.set_service_status(SERVICE, ServingStatus::NotServing).await;
    }

    pub(crate) fn respond_with(&self, behavior: Behavior) {
        self.behavior.send_replace(behavior);
    }

    pub(crate) fn respond_with_error(&self, reason: Reason, retry_after: Duration) {
        self.respond_with(Behavior::Error(Error::new(reason, "no").with_retry_after(retry_after)));
    }

    /// The number of calls received.
    pub(crate) fn received(&self) -> usize {
        self.received.lock().unwrap().len()
    }

    /// Takes the deadlines of the calls received since the last time.
    pub(crate) fn take_received(&self) -> Vec<Option<Duration>> {
        let calls = std::mem::take(&mut *self.received.lock().unwrap());
        calls.into_iter().map(|call| call.deadline).collect()
    }

    /// The number of open streams that are unread.
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    async fn respond<T>(&self, call: &Request<T>) -> Result<Embedding, Status> {
        self.received.lock().unwrap().push(ReceivedMetadata::of(call));
        let mut behavior = self.behavior.subscribe();
        let behavior =
            behavior.wait_for(|behavior| !matches!(behavior, Behavior::Pending)).await.unwrap().clone();
        match behavior {
            Behavior::Error(error) => Err(error.into()),
            Behavior::Vectors | Behavior::UnreadStreams | Behavior::Pending => {
                Ok(Embedding::new(&[self.number], 1))
            }
        }
    }
}

#[tonic::async_trait]
impl EmbedderService for Embedder {
    async fn embed(&self, call: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let vector = self.respond(&call).await?;
        let sentences = call.into_inner().sentences;
        if sentences.iter().any(|sentence| sentence == EXHAUSTING) {
            let exhausted = Error::new(Reason::QuotaExhausted, "the quota is exhausted");
            return Err(exhausted.with_retry_after(Duration::from_secs(7_200)).into());
        }
        let embeddings = sentences.iter().map(|_| vector.clone()).collect();
        Ok(Response::new(EmbedResponse { embeddings }))
    }

    type EmbedStreamStream = Pin<Box<dyn Stream<Item = Result<EmbedStreamResponse, Status>> + Send>>;

    async fn embed_stream(
        &self,
        call: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<Self::EmbedStreamStream>, Status> {
        let vector = self.respond(&call).await?;
        if matches!(*self.behavior.borrow(), Behavior::UnreadStreams) {
            let (counted, unread) = (OpenStream::new(&self.streams), call.into_inner());
            let responses = stream::poll_fn(move |_| {
                let _ = (&counted, &unread);
                Poll::Pending
            });
            return Ok(Response::new(responses.boxed()));
        }
        let responses = call.into_inner().map(move |item| {
            Ok(EmbedStreamResponse { id: item?.id, result: Some(Outcome::Embedding(vector.clone())) })
        });
        Ok(Response::new(responses.boxed()))
    }

    async fn tokenize(&self, call: Request<TokenizeRequest>) -> Result<Response<TokenizeResponse>, Status> {
        self.respond(&call).await?;
        let tokenized = |_| TokenizedSentence { tokens: vec!["a".to_owned()], ..Default::default() };
        let sentences = call.into_inner().sentences.into_iter().map(tokenized).collect();
        Ok(Response::new(TokenizeResponse { sentences, ..Default::default() }))
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(GetModelResponse {
            name: "a model".to_owned(),
            dimension: 512,
            limits: Some(Limits::default()),
            fingerprint: self.fingerprint.unwrap_or_default().to_owned(),
            ..Default::default()
        }))
    }

    async fn get_status(
        &self,
        call: Request<GetStatusRequest>,
    ) -> Result<Response<GetStatusResponse>, Status> {
        self.respond(&call).await?;
        Ok(Response::new(GetStatusResponse { version: self.number.to_string(), ..Default::default() }))
    }
}

/// Counts as an open stream until it is dropped.
struct OpenStream(Arc<AtomicUsize>);

impl OpenStream {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Listens at an address, when the embedder that was killed there has ended.
async fn listener_at(address: SocketAddr) -> TcpListener {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return listener,
            Err(error) => assert!(Instant::now() < end, "{address}: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the number of the responding embedder.
pub(crate) async fn embed(gateway: &Gateway, timeout: Option<Duration>) -> Result<f32, Error> {
    let request = EmbedRequest { sentences: vec!["a".to_owned()], ..EmbedRequest::default() };
    let mut call = bearing(&token("access", "a", None), request);
    if let Some(timeout) = timeout {
        call.set_timeout(timeout);
    }
    match gateway.embedder().embed(call).await {
        Ok(response) => Ok(response.into_inner().embeddings[0].to_vec()[0]),
        Err(status) => Err(Error::from(&status)),
    }
}
