//! `muse.v1.EmbedderService`.

use std::time::Instant;

use muse_model::{
    device,
    inference::{DIMENSION, Model, VECTOR_BYTES},
};
use muse_proto::{
    Fingerprint,
    v1::{
        EmbedRequest, EmbedResponse, EmbedStreamRequest, GetModelRequest, GetModelResponse, GetStatusRequest,
        GetStatusResponse, TokenizeRequest, TokenizeResponse, embedder_service_server::EmbedderService,
    },
};
use muse_server::deadline::Deadline;
use muse_telemetry::request_telemetry::RequestContext;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    activity::{self, Activity},
    batcher::{Batcher, Embedded, FlowKey},
    clock::unix_time,
    limits::TokenLimits,
    memory::{EstimatedTokens, MemoryLease},
    request_tokenizer::RequestTokenizer,
    stream::{StreamResponses, Streams},
    timing::{TimedStep, with_server_timing},
    usage::UsageAccount,
    vector_encoding::VectorEncoding,
};

/// Implements the service. Its state is immutable, except for the queue of the batcher.
#[derive(Debug)]
pub struct EmbedderApi {
    tokenizer: RequestTokenizer,
    batcher: Batcher,
    streams: Streams,
    model: GetModelResponse,
    activity: Activity,
    /// In seconds since 1970.
    started_at: i64,
}

impl EmbedderApi {
    pub(crate) fn new(
        tokenizer: RequestTokenizer,
        batcher: Batcher,
        streams: Streams,
        model: GetModelResponse,
        activity: Activity,
    ) -> Self {
        Self { tokenizer, batcher, streams, model, activity, started_at: unix_time() }
    }
}

/// The response of GetModel.
pub(crate) fn describe_model(
    model: &Model,
    fingerprint: &Fingerprint,
    limits: TokenLimits,
) -> GetModelResponse {
    let manifest = model.manifest();
    GetModelResponse {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        dimension: DIMENSION as u32,
        languages: manifest.languages.clone(),
        precision: model.precision().to_string(),
        device: device::name(model.device()),
        limits: Some(limits.to_proto()),
        source_sha256: manifest.source.sha256.clone(),
        source_precision: manifest.source.precision.to_string(),
        license: manifest.license.clone(),
        fingerprint: fingerprint.to_string(),
        kernel: model.kernel().unwrap_or("libtorch").to_owned(),
    }
}

#[tonic::async_trait]
impl EmbedderService for EmbedderApi {
    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let flow = FlowKey::of(request.extensions())?;
        let usage = UsageAccount::of(request.extensions())?;
        let lease = request.extensions().get::<MemoryLease>().cloned();
        let deadline = request.extensions().get().map(|&Deadline(end)| end);
        let context = request.extensions().get::<RequestContext>().cloned();
        let estimate = request.extensions().get().map(|&EstimatedTokens(tokens)| tokens);
        let request = request.into_inner();
        let encoding = VectorEncoding::requested(request.dimensions, request.format)?;
        let arrived = Instant::now();
        let sentences = self.tokenizer.encode(request).await?;
        let tokenize = arrived.elapsed();
        if let Some(lease) = lease {
            lease.release();
            lease.response(sentences.len() * VECTOR_BYTES).await?;
        }
        // Again: the quota may have been used up while the request arrived.
        usage.check_quota()?;
        let admitted = Instant::now();
        // A message that is too large for the estimate was rejected when it was decoded.
        let estimated_tokens = estimate.unwrap_or_else(|| sentences.tokens());
        let Embedded { embeddings, queue, forward } =
            self.batcher.embed(&flow, sentences, estimated_tokens, encoding, deadline).await?;
        usage.record_vectors(&embeddings);
        let steps = [
            TimedStep { name: "queue", began: admitted, took: queue },
            TimedStep { name: "tokenize", began: arrived, took: tokenize },
            TimedStep { name: "forward", began: admitted + queue, took: forward },
        ];
        Ok(with_server_timing(EmbedResponse { embeddings }, &steps, context.as_ref()))
    }

    type EmbedStreamStream = StreamResponses;

    async fn embed_stream(
        &self,
        request: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<Response<StreamResponses>, Status> {
        Ok(Response::new(self.streams.open(request)?))
    }

    async fn tokenize(
        &self,
        request: Request<TokenizeRequest>,
    ) -> Result<Response<TokenizeResponse>, Status> {
        let lease = request.extensions().get::<MemoryLease>().cloned();
        let context = request.extensions().get::<RequestContext>().cloned();
        let sentences = request.into_inner().sentences;
        if let Some(lease) = lease {
            lease.response(self.tokenizer.max_token_bytes(&sentences)).await?;
        }
        let arrived = Instant::now();
        let response = self.tokenizer.tokenize(sentences).await?;
        let step = TimedStep { name: "tokenize", began: arrived, took: arrived.elapsed() };
        Ok(with_server_timing(response, &[step], context.as_ref()))
    }

    async fn get_model(&self, _: Request<GetModelRequest>) -> Result<Response<GetModelResponse>, Status> {
        Ok(Response::new(self.model.clone()))
    }

    async fn get_status(&self, _: Request<GetStatusRequest>) -> Result<Response<GetStatusResponse>, Status> {
        Ok(Response::new(GetStatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            precision: self.model.precision.clone(),
            device: self.model.device.clone(),
            started_at: self.started_at,
            queued_tokens: self.batcher.queued_tokens() as u64,
            interval_seconds: activity::INTERVAL.as_secs() as u32,
            samples: self.activity.samples(),
        }))
    }
}
