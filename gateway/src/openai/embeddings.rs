//! `POST /v1/embeddings`.

use axum::{
    extract::{Request, State},
    http::StatusCode,
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use muse_proto::{Error, Reason, v1};
use serde::Serialize;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Array, Object, OneOf, RefOr, Schema, Type},
};

use super::{
    answer::{Errors, Refusal},
    input::{EmbeddingRequest, EncodingFormat, in_terms_of_input},
    models,
};
use crate::{
    answer::{json, written},
    numbers::Numbers,
    request::{MAX_SENTENCES_BYTES, authorized, on_behalf_of, parsed, read_body},
    server_timing::Timing,
    upstream::{Upstream, failure},
};

/// One vector for each sentence, in their order.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Embedding>,
    /// The model that made the vectors.
    model: String,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
struct Embedding {
    #[schema(example = "embedding")]
    object: &'static str,
    /// The place of the sentence in the input.
    index: usize,
    #[schema(inline)]
    embedding: Vector,
}

/// A vector of norm 1, in the form that was asked for.
#[derive(Serialize)]
#[serde(untagged)]
enum Vector {
    Float(Numbers),
    Base64(String),
}

impl ToSchema for Vector {}

impl PartialSchema for Vector {
    fn schema() -> RefOr<Schema> {
        let numbers = Array::builder()
            .items(f32::schema())
            .description(Some("512 numbers, or as many as `dimensions` says."));
        let base64 = Object::builder()
            .schema_type(Type::String)
            .description(Some("The same as base64 of little-endian float32."));
        OneOf::builder()
            .item(numbers)
            .item(base64)
            .description(Some("A vector of norm 1, in the form that was asked for."))
            .into()
    }
}

/// Tokens of all sentences together.
#[derive(Serialize, ToSchema)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

/// Embed sentences
///
/// One vector for each sentence of the input, in its order, as OpenAI's API gives them. At most 4,096 sentences,
/// 262,144 bytes and 8,192 tokens a sentence, 262,144 tokens and 16 MiB in all; nothing is ever cut off. An empty
/// sentence has a vector, too.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "OpenAI",
    operation_id = "createEmbedding",
    request_body = EmbeddingRequest,
    responses((status = 200, description = "The vectors", body = EmbeddingList), Errors),
    security(("access_token" = [])),
)]
pub(crate) async fn create(State(upstream): State<Upstream>, request: Request) -> Result<Response, Refusal> {
    let mut timing = Timing::start();
    let (head, body) = authorized(&upstream, request).await?.into_parts();
    let body = read_body(body, MAX_SENTENCES_BYTES).await?;
    let asked = parsed(body, |body| EmbeddingRequest::read(&body)).await??;
    let model = models::served(&upstream, &head.headers).await?;
    model.check(&asked.model)?;
    if asked.input.is_ids() && asked.model != model.id {
        let text =
            format!("input: token ids are those of {0}; name {0} as the model, or send text", model.id);
        return Err(Error::new(Reason::InvalidArgument, text).with_field("input").into());
    }

    let is_one = asked.input.is_one();
    let call = asked.input.into_call(asked.dimensions.map_or(0, u32::from));
    let answer = upstream.embedder_client().embed(on_behalf_of(&head.headers, call)).await;
    let answer = answer.map_err(|status| in_terms_of_input(failure(&status), is_one))?;
    timing.add(answer.metadata());

    let embeddings = answer.into_inner().embeddings;
    let count = embeddings.len();
    let encoding = asked.encoding_format.unwrap_or(EncodingFormat::Float);
    let write = move || json(StatusCode::OK, &list(model.id, embeddings, encoding));
    Ok(timing.tell(written(count, write).await?))
}

fn list(model: String, embeddings: Vec<v1::Embedding>, encoding: EncodingFormat) -> EmbeddingList {
    let tokens = embeddings.iter().map(|embedding| u64::from(embedding.token_count)).sum();
    let vector = |found: v1::Embedding| match encoding {
        EncodingFormat::Float => Vector::Float(Numbers(found)),
        EncodingFormat::Base64 => Vector::Base64(BASE64_STANDARD.encode(found.packed)),
    };
    let embeddings = embeddings.into_iter().enumerate();
    let data =
        embeddings.map(|(index, found)| Embedding { object: "embedding", index, embedding: vector(found) });
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    EmbeddingList { object: "list", data: data.collect(), model, usage }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_of_little_endian_floats() {
        let vectors = vec![v1::Embedding::new(&[1.0, -2.0], 3)];
        let list = serde_json::to_value(list("m".to_owned(), vectors, EncodingFormat::Base64)).unwrap();
        assert_eq!(list["data"][0]["embedding"], "AACAPwAAAMA=");
    }
}
