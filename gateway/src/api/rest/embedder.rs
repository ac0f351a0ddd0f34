//! `/tokenize` and `/embed`.

use axum::{
    extract::{Request, State},
    http::{HeaderValue, header},
    response::Response,
};
use bytes::Bytes;
use http::uri::PathAndQuery;
use muse_proto::{
    Codec, Error, Reason,
    v1::{EmbedRequest, Embedding, TokenizeRequest},
};
use muse_server::{deadline::Deadline, memory_budget::Reservation};
use tonic::client::Grpc;

use super::{
    argument::Wanted,
    arguments::Arguments,
    npy,
    response::RestError,
    response_format::ResponseFormat,
    schemas::{
        ArgumentErrors, DetailsInQuery, EmbedBody, Embeddings, FormInQuery, Npy, SentencesInQuery,
        SentencesToTokenize, TokenErrors, Tokens, Vectors,
    },
    tei::{self, TeiRequest},
    token_json::{self, EncodedTokens},
};
use crate::{
    api::{
        http_response::ArrayBody,
        json_vectors::Numbers,
        limits::{MAX_REQUEST_BYTES, tokenize_limits},
        request::{embedder_call, with_remedy},
        response_memory::{self, ReservedBody},
        server_timing::Timing,
    },
    auth::User,
    middleware::with_deadline,
    upstream::{Upstream, failure},
};

const SENTENCE: &str = "sentence";

/// The argument of `/tokenize` that adds ids and positions to the tokens.
const DETAILS: &str = "details";

/// Tokens of sentences
///
/// For few sentences: the request line is limited. POST is for many.
#[utoipa::path(
    get,
    path = "/tokenize",
    tag = "Sentences",
    operation_id = "tokenize",
    params(SentencesInQuery, DetailsInQuery),
    responses((status = 200, description = "The tokens", body = Tokens), ArgumentErrors, TokenErrors),
    security(("access_token" = []), ("api_key" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn tokenize(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, RestError> {
    respond_with_tokens(&upstream, user, request).await
}

/// Tokens of many sentences
#[utoipa::path(
    post,
    description = tokenize_limits(),
    path = "/tokenize",
    tag = "Sentences",
    operation_id = "tokenizeMany",
    request_body(content((SentencesToTokenize = "application/json"))),
    responses((status = 200, description = "The tokens", body = Tokens), ArgumentErrors, TokenErrors),
    security(("access_token" = []), ("api_key" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn tokenize_many(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, RestError> {
    respond_with_tokens(&upstream, user, request).await
}

async fn respond_with_tokens(
    upstream: &Upstream,
    user: User,
    request: Request,
) -> Result<Response, RestError> {
    let mut timing = Timing::start();
    let wanted = &[Wanted::Sentences(SENTENCE), Wanted::First(DETAILS)];
    let mut request = EmbedderRequest::read(upstream, &user, request, wanted).await?;
    let details = request.arguments.boolean(DETAILS)?;
    let sentences = request.sentences()?;
    let text_bytes = sentences.iter().map(String::len).sum();
    let reserved =
        upstream.response_memory.reserve(user.name(), response_memory::of_tokens(text_bytes)).await?;
    let mut client = Grpc::new(upstream.embedder.clone())
        .max_decoding_message_size(usize::MAX)
        .max_encoding_message_size(usize::MAX);
    client.ready().await.map_err(tonic::Status::from_error)?;
    let path = PathAndQuery::from_static("/muse.v1.EmbedderService/Tokenize");
    let codec = Codec::<TokenizeRequest, EncodedTokens>::default();
    let call = with_deadline(request.call.map(|()| TokenizeRequest { sentences }), request.deadline)?;
    let response = client.unary(call, path, codec).await;
    let tokens = response.map_err(|status| with_remedy(failure(&status)))?;
    drop(request.arguments);
    timing.add_upstream(tokens.metadata());
    let response = token_json::respond(tokens.into_inner(), details).await?;
    Ok(timing.add_header(response.map(|body| axum::body::Body::new(ReservedBody::new(body, reserved)))))
}

/// Vectors of sentences
///
/// For few sentences: the request line is limited. POST is for many.
#[utoipa::path(
    get,
    path = "/embed",
    tag = "Sentences",
    operation_id = "embed",
    params(SentencesInQuery, FormInQuery),
    responses(
        (status = 200, description = "The vectors",
            content((Embeddings = "application/json"), (Npy = "application/octet-stream"))),
        ArgumentErrors,
        TokenErrors,
    ),
    security(("access_token" = []), ("api_key" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn embed(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, RestError> {
    let wanted = &[Wanted::Sentences(SENTENCE), Wanted::First("format")];
    respond_with_vectors(&upstream, user, request, wanted).await
}

/// Vectors of many sentences
#[utoipa::path(
    post,
    description = tei::description(),
    path = "/embed",
    tag = "Sentences",
    operation_id = "embedMany",
    request_body(content((EmbedBody = "application/json"))),
    responses(
        (status = 200, description = "The vectors",
            content((Vectors = "application/json"), (Npy = "application/octet-stream"))),
        ArgumentErrors,
        TokenErrors,
    ),
    security(("access_token" = []), ("api_key" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn embed_many(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, RestError> {
    respond_with_vectors(&upstream, user, request, tei::WANTED).await
}

async fn respond_with_vectors(
    upstream: &Upstream,
    user: User,
    request: Request,
    wanted: &'static [Wanted],
) -> Result<Response, RestError> {
    let timing = Timing::start();
    let accepted = ResponseFormat::accepted(request.headers());
    let mut request = EmbedderRequest::read(upstream, &user, request, wanted).await?;
    let format = ResponseFormat::named(&mut request.arguments)?.unwrap_or(accepted);
    if tei::is_tei(&request.arguments) {
        return respond_to_tei(upstream, user, request, format, timing).await.map_err(RestError::for_tei);
    }
    let sentences = request.sentences()?;
    let message =
        EmbedRequest { sentences, format: format.numbers().requested().into(), ..EmbedRequest::default() };
    let vectors = embed_sentences(upstream, &user, request, message, with_remedy, timing).await?;
    vectors.respond(format, JsonFrame { head: "{\"embedding\":[", tail: "]}" }).await
}

/// The response to a request of text-embeddings-inference.
async fn respond_to_tei(
    upstream: &Upstream,
    user: User,
    mut request: EmbedderRequest,
    format: ResponseFormat,
    timing: Timing,
) -> Result<Response, RestError> {
    let TeiRequest { mut message, is_one, cut_to } = TeiRequest::take(&mut request.arguments)?;
    message.format = format.numbers().requested().into();
    let adapt = |error| tei::embedder_error(error, is_one);
    let mut vectors = embed_sentences(upstream, &user, request, message, adapt, timing).await?;
    if let Some(components) = cut_to {
        let numbers = format.numbers();
        for vector in &mut vectors.embeddings {
            numbers.bytes(vector).truncate(components.get() as usize * numbers.size());
        }
    }
    vectors.respond(format, JsonFrame { head: "[", tail: "]" }).await
}

/// The embedder's response to a request.
struct VectorResponse {
    embeddings: Vec<Embedding>,
    reserved: Option<Reservation>,
    timing: Timing,
}

/// The bytes before and after the vectors in JSON.
struct JsonFrame {
    head: &'static str,
    tail: &'static str,
}

/// Calls the embedder, with memory reserved for the response. `adapt` adapts the error of the
/// embedder to the request.
async fn embed_sentences(
    upstream: &Upstream,
    user: &User,
    request: EmbedderRequest,
    message: EmbedRequest,
    adapt: impl FnOnce(Error) -> Error,
    mut timing: Timing,
) -> Result<VectorResponse, RestError> {
    let bytes = response_memory::of_vectors(message.sentences.len());
    let reserved = upstream.response_memory.reserve(user.name(), bytes).await?;
    let call = with_deadline(request.call.map(|()| message), request.deadline)?;
    let response = upstream.embedder_client().embed(call).await;
    let response = response.map_err(|status| adapt(failure(&status)))?;
    drop(request.arguments);
    timing.add_upstream(response.metadata());
    Ok(VectorResponse { embeddings: response.into_inner().embeddings, reserved, timing })
}

impl VectorResponse {
    async fn respond(self, format: ResponseFormat, frame: JsonFrame) -> Result<Response, RestError> {
        let Self { embeddings, reserved, timing } = self;
        let response = match format {
            ResponseFormat::Json => {
                let array = ArrayBody {
                    head: frame.head.into(),
                    items: embeddings.into_iter(),
                    separator: b",",
                    write: |json: &mut Vec<u8>, vector| serde_json::to_writer(json, &Numbers(vector)),
                    tail: frame.tail.into(),
                };
                array.respond("application/json").await?
            }
            ResponseFormat::Npy(numbers) => {
                let mut embeddings = embeddings;
                let rows: Vec<Bytes> =
                    embeddings.iter_mut().map(|row| std::mem::take(numbers.bytes(row))).collect();
                if rows.iter().any(Bytes::is_empty) {
                    // An embedder of a release without formats ignores the field.
                    let text =
                        "format: the embedder is of an older release, which supports 'json' and 'npy' only";
                    return Err(Error::new(Reason::Unavailable, text).into());
                }
                let columns = rows.first().map_or(0, |row| row.len() / numbers.size());
                let head = npy::header(numbers, rows.len(), columns);
                let length = head.len() + rows.iter().map(Bytes::len).sum::<usize>();
                let array = ArrayBody {
                    head,
                    items: rows.into_iter(),
                    separator: b"",
                    write: |file: &mut Vec<u8>, row: Bytes| {
                        file.extend_from_slice(&row);
                        Ok(())
                    },
                    tail: Vec::new(),
                };
                let mut response = array.respond("application/octet-stream").await?;
                response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
                response
            }
        };
        let mut response = response.map(|body| axum::body::Body::new(ReservedBody::new(body, reserved)));
        response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
        Ok(timing.add_header(response))
    }
}

/// A request with sentences: its call to the embedder, its deadline, and its arguments.
struct EmbedderRequest {
    call: tonic::Request<()>,
    deadline: Option<Deadline>,
    arguments: Arguments,
}

impl EmbedderRequest {
    async fn read(
        upstream: &Upstream,
        user: &User,
        request: Request,
        wanted: &'static [Wanted],
    ) -> Result<Self, RestError> {
        let extensions = request.extensions();
        let (call, deadline) = (embedder_call(request.headers(), extensions, ()), extensions.get().copied());
        let memory = &upstream.request_memory;
        let arguments = Arguments::read(request, wanted, MAX_REQUEST_BYTES, memory, user.name()).await;
        Ok(Self { call, deadline, arguments: arguments.map_err(RestError::with_remedy)? })
    }

    fn sentences(&mut self) -> Result<Vec<String>, RestError> {
        self.arguments.all(SENTENCE).map_err(RestError::with_remedy)
    }
}
