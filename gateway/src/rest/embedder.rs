//! `/tokenize` and `/embed`.

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use muse_proto::v1::{EmbedRequest, TokenizeRequest};
use muse_verifier::TokenKind;
use serde::Serialize;

use super::{
    MAX_SENTENCES_BYTES,
    answer::{Refusal, json},
    arguments::{Arguments, read_out},
    on_behalf_of,
};
use crate::upstream::Upstream;

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Embeddings {
    embedding: Vec<Vec<f32>>,
}

pub(super) async fn tokenize(
    State(upstream): State<Upstream>,
    request: Request,
) -> Result<Response, Refusal> {
    let call = call(&upstream, request, |sentences| TokenizeRequest { sentences }).await?;
    let answer = upstream.embedder_client().tokenize(call).await?.into_inner();
    let tokens = answer.sentences.into_iter().map(|sentence| sentence.tokens).collect();
    Ok(json(StatusCode::OK, &Tokens { tokens }))
}

pub(super) async fn embed(State(upstream): State<Upstream>, request: Request) -> Result<Response, Refusal> {
    let call = call(&upstream, request, |sentences| EmbedRequest { sentences }).await?;
    let answer = upstream.embedder_client().embed(call).await?.into_inner();
    let embedding = answer.embeddings.into_iter().map(|vector| vector.values).collect();
    Ok(json(StatusCode::OK, &Embeddings { embedding }))
}

/// The call of a request that may be made.
async fn call<T>(
    upstream: &Upstream,
    request: Request,
    message: impl FnOnce(Vec<String>) -> T,
) -> Result<tonic::Request<T>, Refusal> {
    if let Err(refusal) = upstream.verifier.authorize(request.headers(), Some(TokenKind::Access)) {
        read_out(request.into_body()).await;
        return Err(refusal.into());
    }
    let call = on_behalf_of(request.headers(), ());
    let sentences = Arguments::read(request, MAX_SENTENCES_BYTES).await?.all("sentence")?;
    Ok(call.map(|()| message(sentences)))
}
