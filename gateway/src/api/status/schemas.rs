//! The responses of these routes.

use std::collections::BTreeMap;

use muse_balancer::EmbedderCounts;
use muse_proto::{
    Fingerprint,
    v1::{ActivitySample, GetModelResponse, GetStatusResponse, Limits},
};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{self, RefOr},
};

use crate::api::{limits::FINGERPRINT_MISMATCH, problem::problems};

/// The state of the service.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ServiceStatus {
    /// Version of the gateway.
    version: &'static str,
    /// Null if no embedder describes the model.
    #[schema(required = true)]
    model: Option<ModelDescription>,
    /// Null if no embedder describes the model.
    #[schema(required = true)]
    limits: Option<RequestLimits>,
    /// Why no embedder describes the model; null if one does.
    #[schema(required = true, example = json!(null))]
    problem: Option<String>,
    /// Embedders that the gateway has resolved.
    embedders_known: usize,
    /// Resolved embedders that get calls.
    embedders_serving: usize,
    /// Resolved embedders that serve, but get no calls, because they have another fingerprint than the model.
    embedders_unused: usize,
    /// Those that serve and have responded, also those that get no calls.
    embedders: Vec<EmbedderStatus>,
}

/// The model, as one of the embedders describes it.
#[derive(Debug, Serialize, ToSchema)]
struct ModelDescription {
    #[schema(example = "universal-sentence-encoder-multilingual")]
    name: String,
    #[schema(example = "3")]
    version: String,
    /// Components of a vector.
    dimension: u32,
    /// BCP 47 codes of the languages of the model's training data.
    languages: Vec<String>,
    /// The precision of the forward pass: `f32`, `bf16`, `f16` or `int8`.
    precision: String,
    /// `cpu` or `cuda:0`.
    device: String,
    /// What computes the encoder: the name of a kernel, or `libtorch`. Null if the embedders are of
    /// an older release.
    #[schema(required = true, example = "AVX-512")]
    kernel: Option<String>,
    /// The SPDX identifier of the model's licence.
    license: String,
    /// The SHA-256 of the file from which the model was converted, in hexadecimal.
    source_sha256: String,
    /// The precision of the weights in that file: `int8` or `float32`.
    source_precision: String,
    /// Id of what computes a vector: weights, tokenizer and precision. Vectors of different fingerprints must not be compared. Null
    /// if the embedders are of an older release.
    #[schema(required = true, example = "f32-3fa9c07b12de")]
    fingerprint: Option<String>,
}

/// The limits of a request.
#[derive(Debug, Serialize, ToSchema)]
struct RequestLimits {
    max_sentences: u32,
    /// Bytes of UTF-8 of a sentence.
    max_sentence_bytes: u32,
    /// Tokens of a sentence to embed.
    max_sentence_tokens: u32,
    /// Tokens of all sentences of a request.
    max_request_tokens: u32,
    /// Bytes of an encoded gRPC request, after decompression.
    max_request_bytes: u32,
}

/// The state of an embedder.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct EmbedderStatus {
    version: String,
    precision: String,
    device: String,
    /// Null if it is of an older release.
    #[schema(required = true, example = "f32-3fa9c07b12de")]
    fingerprint: Option<String>,
    /// Whether it gets calls: it has the fingerprint of the model.
    used: bool,
    /// In seconds since 1970.
    started_at: i64,
    /// Tokens that wait for a forward pass.
    queued_tokens: u64,
    /// Seconds of a sample.
    interval: u32,
    /// The oldest first; those of at most ten minutes.
    samples: Vec<Activity>,
}

/// The activity within an interval.
#[derive(Debug, Serialize, ToSchema)]
struct Activity {
    /// The start of the interval, in seconds since 1970.
    start: i64,
    /// Answered calls to embed or tokenize, and opened streams.
    requests: u64,
    /// Sentences whose vectors were computed.
    sentences: u64,
    /// Their tokens.
    tokens: u64,
    /// Calls that the embedder rejected because of a quota, of load, or of a limit of memory.
    rejected: u64,
    /// Tokens that waited at the end of the interval.
    queued_tokens: u64,
    /// Median of the milliseconds to embed the sentences of a request; null without one.
    #[schema(required = true)]
    p50_ms: Option<f64>,
    /// Their 99th percentile.
    #[schema(required = true)]
    p99_ms: Option<f64>,
}

/// Whether the service can embed.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Readiness {
    pub(super) ready: bool,
}

impl ServiceStatus {
    /// The state, with the description of the model or the reason why there is none.
    pub(super) fn new(
        model: Result<ServedModel, String>,
        counts: EmbedderCounts,
        embedders: Vec<EmbedderStatus>,
    ) -> Self {
        let (model, limits, problem) = match model {
            Ok(ServedModel { model, limits }) => (Some(model), Some(limits), None),
            Err(problem) => (None, None, Some(problem)),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            model,
            limits,
            problem,
            embedders_known: counts.known,
            embedders_serving: counts.serving,
            embedders_unused: counts.unused,
            embedders,
        }
    }
}

/// The model and the limits of a request, as an embedder describes them.
pub(super) struct ServedModel {
    model: ModelDescription,
    limits: RequestLimits,
}

impl ServedModel {
    /// `None` if the description has no limits, which every embedder sends.
    pub(super) fn new(model: GetModelResponse) -> Option<Self> {
        let Limits {
            max_sentences,
            max_sentence_bytes,
            max_sentence_tokens,
            max_request_tokens,
            max_request_bytes,
        } = model.limits?;
        Some(Self {
            model: ModelDescription {
                name: model.name,
                version: model.version,
                dimension: model.dimension,
                languages: model.languages,
                precision: model.precision,
                device: model.device,
                kernel: Some(model.kernel).filter(|kernel| !kernel.is_empty()),
                license: model.license,
                source_sha256: model.source_sha256,
                source_precision: model.source_precision,
                fingerprint: Some(model.fingerprint).filter(|fingerprint| !fingerprint.is_empty()),
            },
            limits: RequestLimits {
                max_sentences,
                max_sentence_bytes,
                max_sentence_tokens,
                max_request_tokens,
                max_request_bytes,
            },
        })
    }
}

impl EmbedderStatus {
    /// The state of an embedder with this fingerprint, which gets calls if it is `used`.
    pub(super) fn new(status: GetStatusResponse, fingerprint: Option<Fingerprint>, used: bool) -> Self {
        Self {
            version: status.version,
            precision: status.precision,
            device: status.device,
            fingerprint: fingerprint.map(|fingerprint| fingerprint.to_string()),
            used,
            started_at: status.started_at,
            queued_tokens: status.queued_tokens,
            interval: status.interval_seconds,
            samples: status.samples.into_iter().map(Activity::from).collect(),
        }
    }
}

impl From<ActivitySample> for Activity {
    fn from(sample: ActivitySample) -> Self {
        let ActivitySample { start, requests, sentences, tokens, rejected, queued_tokens, p50_ms, p99_ms } =
            sample;
        Self { start, requests, sentences, tokens, rejected, queued_tokens, p50_ms, p99_ms }
    }
}

/// The errors of `/api/status`.
pub(crate) struct StatusErrors;

impl IntoResponses for StatusErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[
            (400, "The header `muse-fingerprint` is malformed"),
            (401, "The credential is missing, malformed, of another kind, expired or revoked"),
            (403, "A page of another site has sent the request with a cookie"),
            (412, FINGERPRINT_MISMATCH),
            (429, "Too many requests are open"),
            (503, "The auth service has been unreachable for too long to verify tokens"),
        ])
    }
}
