//! `/tokenize` and `/embed`.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use muse_proto::v1::{EmbedRequest, TokenizeRequest};
use serde::Serialize;

use super::{answer::Refusal, arguments::Arguments, form::Form, npy};
use crate::{
    answer::{json, written},
    numbers::Numbers,
    request::{MAX_SENTENCES_BYTES, authorized, on_behalf_of},
    server_timing::Timing,
    upstream::Upstream,
};

#[derive(Serialize)]
struct Tokens {
    tokens: Vec<Vec<String>>,
}

#[derive(Serialize)]
struct Embeddings {
    embedding: Vec<Numbers>,
}

pub(super) async fn tokenize(
    State(upstream): State<Upstream>,
    request: Request,
) -> Result<Response, Refusal> {
    let mut timing = Timing::start();
    let (call, arguments) = asked(&upstream, request).await?;
    let sentences = arguments.all("sentence")?;
    let answer = upstream.embedder_client().tokenize(call.map(|()| TokenizeRequest { sentences })).await?;
    timing.add(answer.metadata());
    let tokens: Vec<_> = answer.into_inner().sentences.into_iter().map(|sentence| sentence.tokens).collect();
    let written = written(tokens.len(), move || json(StatusCode::OK, &Tokens { tokens })).await?;
    Ok(timing.tell(written))
}

pub(super) async fn embed(State(upstream): State<Upstream>, request: Request) -> Result<Response, Refusal> {
    let mut timing = Timing::start();
    let accepted = Form::accepted(request.headers());
    let (call, arguments) = asked(&upstream, request).await?;
    let form = Form::named(&arguments)?.unwrap_or(accepted);
    let sentences = arguments.all("sentence")?;
    let message = EmbedRequest { sentences, ..EmbedRequest::default() };
    let answer = upstream.embedder_client().embed(call.map(|()| message)).await?;
    timing.add(answer.metadata());
    let embeddings = answer.into_inner().embeddings;
    let mut response = written(embeddings.len(), move || match form {
        Form::Json => {
            let embedding = embeddings.into_iter().map(Numbers).collect();
            json(StatusCode::OK, &Embeddings { embedding })
        }
        Form::Npy => {
            let file = npy::encode(&embeddings);
            ([(header::CONTENT_TYPE, "application/octet-stream")], file).into_response()
        }
    })
    .await?;
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    Ok(timing.tell(response))
}

/// The call and the arguments of a request that may be made.
async fn asked(upstream: &Upstream, request: Request) -> Result<(tonic::Request<()>, Arguments), Refusal> {
    let request = authorized(upstream, request).await?;
    let call = on_behalf_of(request.headers(), ());
    Ok((call, Arguments::read(request, MAX_SENTENCES_BYTES).await?))
}
