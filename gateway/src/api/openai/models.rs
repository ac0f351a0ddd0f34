//! `GET /v1/models` and `GET /v1/models/{model}`: there is one model.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::{Path, State, rejection::PathRejection},
    http::{StatusCode, request::Parts},
    response::Response,
};
use muse_proto::{
    Error, Reason,
    v1::{GetModelRequest, GetModelResponse},
};
use serde::Serialize;
use utoipa::ToSchema;

use super::response::{Errors, OpenAiError};
use crate::{
    api::{http_response::json, request::on_behalf_of},
    upstream::Upstream,
};

/// Names that programs written for OpenAI ask for, often without their user's doing. They stand for the one model;
/// the answers say which it is.
const ALIASES: [&str; 3] = ["text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"];

/// How long a model that was asked for is taken for the one that is served. It changes with an upgrade of the embedders alone.
const FRESH_FOR: Duration = Duration::from_secs(10);

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
    /// Not known: always 0.
    created: u64,
    #[schema(example = "muse-as-service")]
    owned_by: &'static str,
    /// Version of the original that it was converted from.
    #[schema(example = "3")]
    version: String,
    /// Components of its vectors.
    #[schema(example = 512)]
    pub(super) dimension: u32,
    /// What it computes in: `f32`, `bf16` or `f16`.
    #[schema(example = "f32")]
    precision: String,
    /// Where it runs.
    #[schema(example = "cpu")]
    device: String,
}

impl Model {
    /// Whether this is the model that is meant.
    pub(super) fn check(&self, asked: &str) -> Result<(), Error> {
        if asked == self.id || ALIASES.contains(&asked) {
            return Ok(());
        }
        let text = format!("model: there is no model '{asked}' here; the one that is served is {}", self.id);
        Err(Error::new(Reason::NoSuchModel, text).with_field("model"))
    }
}

/// The model as it was last asked for, so that `/v1/embeddings` makes one call for a request. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct ModelCache(Arc<Mutex<Option<Cached>>>);

#[derive(Debug)]
struct Cached {
    when: Instant,
    model: Arc<Model>,
}

impl ModelCache {
    fn get(&self) -> Option<Arc<Model>> {
        let cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        cached
            .as_ref()
            .filter(|cached| cached.when.elapsed() < FRESH_FOR)
            .map(|cached| Arc::clone(&cached.model))
    }

    fn set(&self, model: &Arc<Model>) {
        let cached = Cached { when: Instant::now(), model: Arc::clone(model) };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(cached);
    }
}

/// The model that is served, as it was up to ten seconds ago.
pub(super) async fn cached(upstream: &Upstream, head: &Parts) -> Result<Arc<Model>, OpenAiError> {
    if let Some(model) = upstream.model.get() {
        return Ok(model);
    }
    let model = Arc::new(served(upstream, head).await?);
    upstream.model.set(&model);
    Ok(model)
}

/// The model that is served.
async fn served(upstream: &Upstream, head: &Parts) -> Result<Model, OpenAiError> {
    let call = on_behalf_of(&head.headers, &head.extensions, GetModelRequest {});
    let GetModelResponse { name, version, dimension, precision, device, .. } =
        upstream.embedder_client().get_model(call).await?.into_inner();
    let (object, owned_by) = ("model", "muse-as-service");
    Ok(Model { id: name, object, created: 0, owned_by, version, dimension, precision, device })
}

/// The models
///
/// There is one.
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "OpenAI",
    operation_id = "listModels",
    responses((status = 200, description = "The model", body = ModelList), Errors),
    security(("access_token" = [])),
)]
pub(crate) async fn list(State(upstream): State<Upstream>, head: Parts) -> Result<Response, OpenAiError> {
    let data = vec![served(&upstream, &head).await?];
    Ok(json(StatusCode::OK, &ModelList { object: "list", data }))
}

/// A model
///
/// The one that is served, by its own name or one that stands for it.
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "OpenAI",
    operation_id = "retrieveModel",
    params(("model" = String, Path, description = "Its id", example = "universal-sentence-encoder-multilingual")),
    responses((status = 200, description = "The model", body = Model), Errors),
    security(("access_token" = [])),
)]
pub(crate) async fn retrieve(
    State(upstream): State<Upstream>,
    asked: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, OpenAiError> {
    let model = served(&upstream, &head).await?;
    // What is not UTF-8 is no model's name.
    model.check(&asked.map_or_else(|_| String::new(), |Path(asked)| asked))?;
    Ok(json(StatusCode::OK, &model))
}
