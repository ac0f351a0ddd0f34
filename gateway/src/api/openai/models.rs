//! `GET /v1/models` and `GET /v1/models/{model}`. There is one model.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, request::Parts},
    response::Response,
};
use muse_balancer::ModelIdentity;
use muse_proto::{
    Error, Fingerprint, Reason,
    v1::{GetModelRequest, GetModelResponse},
};
use serde::{Serialize, Serializer};
use utoipa::ToSchema;

use super::response::{Errors, OpenAiError};
use crate::{
    api::{http_response::json, limits::DIMENSION, request::embedder_call},
    upstream::Upstream,
};

/// Aliases of the model: the names that programs written for OpenAI send, often without their user's choice. Responses contain the
/// name of the model.
const ALIASES: [&str; 3] = ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"];

/// Time for which the response of `GetModel` is cached, unless the served model changes meanwhile.
const TIME_TO_LIVE: Duration = Duration::from_secs(10);

/// All models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Model>,
}

/// A model.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(crate) struct Model {
    #[schema(example = "universal-sentence-encoder-multilingual")]
    pub(super) id: String,
    #[schema(example = "model")]
    object: &'static str,
    /// Always 0: not known.
    created: u64,
    #[schema(example = "muse-as-service")]
    owned_by: &'static str,
    /// Version of the original model from which it was converted.
    #[schema(example = "3")]
    version: String,
    /// Components of its vectors.
    #[schema(example = json!(DIMENSION))]
    pub(super) dimension: u32,
    /// The precision of the forward pass: `f32`, `bf16`, `f16` or `int8`.
    #[schema(example = "f32")]
    precision: String,
    /// Device that runs the model.
    #[schema(example = "cpu")]
    device: String,
    /// Id of what computes a vector: weights, tokenizer and precision. Vectors of different fingerprints must not be compared. Null
    /// if the embedder is of an older release.
    #[schema(value_type = Option<String>, required = true, example = "f32-3fa9c07b12de")]
    #[serde(serialize_with = "serialize_fingerprint")]
    pub(super) fingerprint: Option<Fingerprint>,
}

impl Model {
    /// Checks the name of a model in a request.
    ///
    /// # Errors
    ///
    /// [`Reason::NoSuchModel`] if it is neither this model nor an alias.
    pub(super) fn check(&self, name: &str) -> Result<(), Error> {
        if name == self.id || ALIASES.contains(&name) {
            return Ok(());
        }
        let text = format!(
            "model: there is no model '{name}' here: configure {}, or one of its aliases: {}",
            self.id,
            ALIASES.join(", "),
        );
        Err(Error::new(Reason::NoSuchModel, text).with_field("model"))
    }
}

/// A cache of `GetModel`, so that `/v1/embeddings` makes one call for a request. Clones share it.
///
/// It has one entry, so that a cache crate would not make it shorter.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelCache(Arc<Mutex<Option<Cached>>>);

#[derive(Debug)]
struct Cached {
    since: Instant,
    model: Arc<Model>,
}

impl ModelCache {
    /// The response of an embedder with the model that is served now.
    fn get(&self, served: &ModelIdentity) -> Option<Arc<Model>> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached
            .as_ref()
            .filter(|cached| cached.since.elapsed() < TIME_TO_LIVE)
            .filter(|cached| cached.model.fingerprint.as_ref() == served.fingerprint())
            .map(|cached| Arc::clone(&cached.model))
    }

    fn set(&self, model: &Arc<Model>) {
        let cached = Cached { since: Instant::now(), model: Arc::clone(model) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
    }
}

fn serialize_fingerprint<S: Serializer>(
    fingerprint: &Option<Fingerprint>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    fingerprint.as_ref().map(Fingerprint::as_str).serialize(serializer)
}

/// The model, from the cache if it is fresh.
pub(super) async fn cached(upstream: &Upstream, head: &Parts) -> Result<Arc<Model>, OpenAiError> {
    let known = upstream.embedder.served().and_then(|served| upstream.model.get(&served));
    if let Some(model) = known {
        return Ok(model);
    }
    let model = Arc::new(served(upstream, head).await?);
    upstream.model.set(&model);
    Ok(model)
}

/// The model, as an embedder reports it.
async fn served(upstream: &Upstream, head: &Parts) -> Result<Model, OpenAiError> {
    let call = embedder_call(&head.headers, &head.extensions, GetModelRequest {});
    let GetModelResponse { name, version, dimension, precision, device, fingerprint, .. } =
        upstream.embedder_client().get_model(call).await?.into_inner();
    let (object, owned_by) = ("model", "muse-as-service");
    let fingerprint = fingerprint.parse().ok();
    Ok(Model { id: name, object, created: 0, owned_by, version, dimension, precision, device, fingerprint })
}

/// List the models
///
/// There is one model.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    operation_id = "listModels",
    responses((status = 200, description = "The model", body = ModelList), Errors),
    security(("access_token" = []), ("api_key" = [])),
)]
pub(crate) async fn list(State(upstream): State<Upstream>, head: Parts) -> Result<Response, OpenAiError> {
    let data = vec![served(&upstream, &head).await?];
    Ok(json(StatusCode::OK, &ModelList { object: "list", data }))
}

/// Describe a model
///
/// By its name or an alias.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    operation_id = "retrieveModel",
    params(("model" = String, Path, description = "The name or an alias", example = "universal-sentence-encoder-multilingual")),
    responses((status = 200, description = "The model", body = Model), Errors),
    security(("access_token" = []), ("api_key" = [])),
)]
pub(crate) async fn retrieve(
    State(upstream): State<Upstream>,
    name: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, OpenAiError> {
    let model = served(&upstream, &head).await?;
    // A name that is not UTF-8 is unknown, like the empty one.
    model.check(&name.map_or_else(|_| String::new(), |Path(name)| name))?;
    Ok(json(StatusCode::OK, &model))
}
