//! `POST /v1/embeddings`.

use axum::{
    body::Body,
    extract::{Request, State},
    response::Response,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use muse_proto::{Error, Fingerprint, Reason, v1};
use serde::Serialize;
use serde_json::json;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{Array, Object, OneOf, RefOr, Schema, Type},
};

use super::{
    input::{EmbeddingRequest, EncodingFormat},
    models,
    response::{Errors, OpenAiError},
};
use crate::{
    api::{
        http_response::ArrayBody,
        json_vectors::Numbers,
        limits::{DIMENSION, MAX_REQUEST_BYTES, embed_limits},
        request::{BodyError, embedder_call, parsed, read_body, with_remedy, with_request_field},
        response_memory::{self, ReservedBody},
        server_timing::Timing,
    },
    auth::User,
    middleware::with_deadline,
    upstream::{Upstream, failure},
};

/// One vector for each sentence, in their order.
#[derive(ToSchema)]
#[expect(dead_code, reason = "only the OpenAPI document uses this; the body is produced in pieces")]
pub(crate) struct EmbeddingList {
    #[schema(example = "list")]
    object: &'static str,
    data: Vec<Embedding>,
    /// The model that made the vectors.
    model: String,
    /// Fingerprint of the model. Absent if the embedder is of an older release.
    #[schema(nullable = false, example = "f32-3fa9c07b12de")]
    system_fingerprint: Option<String>,
    usage: Usage,
}

#[derive(Serialize, ToSchema)]
struct Embedding {
    #[schema(example = "embedding")]
    object: &'static str,
    /// The index of the sentence in the input.
    index: usize,
    #[schema(inline)]
    embedding: Vector,
}

/// A vector of norm 1, in the requested encoding.
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
            .description(Some(format!("{DIMENSION} numbers, or as many as `dimensions`.")));
        let base64 = Object::builder()
            .schema_type(Type::String)
            .description(Some("The same as base64 of little-endian float32."));
        OneOf::builder()
            .item(numbers)
            .item(base64)
            .description(Some("A vector of norm 1, in the requested encoding."))
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
#[utoipa::path(
    post,
    description = format!(
        "One vector for each sentence of the input, in its order. {}; text is never truncated. An empty sentence has a vector, too.",
        embed_limits(),
    ),
    path = "/v1/embeddings",
    tag = "OpenAI",
    operation_id = "createEmbedding",
    request_body = EmbeddingRequest,
    responses((status = 200, description = "The vectors", body = EmbeddingList), Errors),
    security(("access_token" = []), ("api_key" = [])),
)]
pub(crate) async fn create(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, OpenAiError> {
    let mut timing = Timing::start();
    let caller = user.name();
    let (head, body) = request.into_parts();
    let body = read_body(&upstream.request_memory, caller, &head, body, MAX_REQUEST_BYTES).await;
    let body = body.map_err(|error| match error {
        BodyError::Error(error) => BodyError::Error(with_remedy(error)),
        other => other,
    })?;
    let request = parsed(body.bytes, |body| EmbeddingRequest::read(&body)).await?.map_err(with_remedy)?;
    let model = models::cached(&upstream, &head).await?;
    model.check(&request.model)?;
    if request.input.is_ids() && request.model != model.id {
        let text = format!(
            "input: token ids are those of {0}; name {0} as the model, or send text (LangChain: \
                 check_embedding_ctx_length=False)",
            model.id,
        );
        return Err(Error::new(Reason::InvalidArgument, text).with_field("input").into());
    }

    if let Some(dimensions) = request.dimensions.filter(|dimensions| dimensions.get() > model.dimension) {
        let text = format!(
            "dimensions: {dimensions}; the vectors of {} have {most} components: leave `dimensions` out, or configure \
             at most {most}, and an index of that size",
            model.id,
            most = model.dimension,
        );
        return Err(Error::new(Reason::InvalidArgument, text).with_field("dimensions").into());
    }

    let is_one = request.input.is_one();
    let bytes = response_memory::of_vectors(request.input.count());
    let reserved = upstream.response_memory.reserve(caller, bytes).await?;
    let message = request.input.into_call(request.dimensions.map_or(0, u32::from));
    let call = with_deadline(
        embedder_call(&head.headers, &head.extensions, message),
        head.extensions.get().copied(),
    )?;
    let response = upstream.embedder_client().embed(call).await;
    let response =
        response.map_err(|status| with_remedy(with_request_field(failure(&status), "input", is_one)))?;
    drop(body.reservation);
    timing.add_upstream(response.metadata());

    let encoding = request.encoding_format.unwrap_or(EncodingFormat::Float);
    let fingerprint = Fingerprint::reported(response.metadata().as_ref());
    let list = list(&model.id, fingerprint.as_ref(), response.into_inner().embeddings, encoding);
    let response = list.respond("application/json").await?;
    Ok(timing.add_header(response.map(|body| Body::new(ReservedBody::new(body, reserved)))))
}

/// An [`EmbeddingList`].
fn list(
    model: &str,
    fingerprint: Option<&Fingerprint>,
    embeddings: Vec<v1::Embedding>,
    encoding: EncodingFormat,
) -> ArrayBody<
    v1::Embedding,
    impl FnMut(&mut Vec<u8>, v1::Embedding) -> serde_json::Result<()> + Send + 'static,
> {
    let tokens = embeddings.iter().map(|embedding| u64::from(embedding.token_count)).sum();
    let usage = Usage { prompt_tokens: tokens, total_tokens: tokens };
    let mut rest = json!({ "model": model, "usage": usage });
    if let Some(fingerprint) = fingerprint {
        rest["system_fingerprint"] = fingerprint.as_str().into();
    }
    let tail = format!("],{}", &rest.to_string()[1..]);
    let mut index = 0;
    let write = move |json: &mut Vec<u8>, found: v1::Embedding| {
        let vector = match encoding {
            EncodingFormat::Float => Vector::Float(Numbers(found)),
            EncodingFormat::Base64 => Vector::Base64(BASE64_STANDARD.encode(found.packed)),
        };
        let item = Embedding { object: "embedding", index, embedding: vector };
        index += 1;
        serde_json::to_writer(json, &item)
    };
    ArrayBody {
        head: br#"{"object":"list","data":["#.to_vec(),
        items: embeddings.into_iter(),
        separator: b",",
        write,
        tail: tail.into_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::*;

    async fn shown(count: usize, encoding: EncodingFormat) -> Value {
        let vectors = vec![v1::Embedding::new(&[1.0, -2.0], 3); count];
        let fingerprint = "f32-3fa9c07b12de".parse().unwrap();
        let list = list("m", Some(&fingerprint), vectors, encoding);
        let response = list.respond("application/json").await.unwrap();
        serde_json::from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn base64_is_of_little_endian_floats() {
        assert_eq!(shown(1, EncodingFormat::Base64).await["data"][0]["embedding"], "AACAPwAAAMA=");
    }

    #[tokio::test]
    async fn long_list_has_openai_format() {
        let list = shown(100, EncodingFormat::Float).await;
        assert_eq!(list["data"][99], json!({ "object": "embedding", "index": 99, "embedding": [1.0, -2.0] }));
        assert_eq!(list["data"].as_array().map(Vec::len), Some(100));
        let usage = json!({ "prompt_tokens": 300, "total_tokens": 300 });
        assert_eq!((&list["object"], &list["model"], &list["usage"]), (&json!("list"), &json!("m"), &usage));
        assert_eq!(list["system_fingerprint"], "f32-3fa9c07b12de");
    }
}
