//! The schemas of the REST routes, for the OpenAPI document. Handlers read and produce bodies in pieces, without these types.

#![expect(dead_code, reason = "only the OpenAPI document uses these types")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{
        self, RefOr,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type},
    },
};

use crate::api::{
    limits::{DIMENSION, FINGERPRINT_MISMATCH, MAX_SENTENCES, UNSUPPORTED_ENCODING},
    openapi::errors,
};

/// Why a token or a password is rejected.
#[derive(ToSchema)]
pub(crate) struct Refused {
    #[schema(example = "Token has expired")]
    msg: String,
}

/// The outcome of a request.
#[derive(ToSchema)]
pub(crate) struct Said {
    #[schema(example = "Access token has been revoked")]
    message: String,
}

/// Why a request failed.
#[derive(ToSchema)]
pub(crate) struct Failed {
    #[schema(inline)]
    message: Failure,
    /// The text of `message`; in responses to requests of text-embeddings-inference.
    #[schema(nullable = false)]
    error: Option<String>,
    /// The error in a JSON body, with its position.
    #[schema(nullable = false)]
    detail: Option<String>,
    /// With the status 429, which limit was exceeded: `TOO_MANY_ATTEMPTS`, `OVERLOADED` or `QUOTA_EXHAUSTED`.
    #[schema(nullable = false, example = "OVERLOADED")]
    reason: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Failure {
    Text(String),
    /// By the names of arguments.
    Arguments(BTreeMap<String, String>),
}

#[derive(ToSchema)]
pub(crate) struct Login {
    #[schema(example = "admin")]
    username: String,
    #[schema(example = "admin", format = Password)]
    password: String,
}

#[derive(ToSchema)]
pub(crate) struct LoggedIn {
    #[schema(example = "Logged in as admin")]
    message: String,
    /// For every other route.
    access_token: String,
    /// For `/token/refresh`.
    refresh_token: String,
}

#[derive(ToSchema)]
pub(crate) struct Refreshed {
    #[schema(example = "Access token has been refreshed")]
    message: String,
    access_token: String,
    /// Replaces the refresh token of the request; only if refresh tokens rotate.
    #[schema(nullable = false)]
    refresh_token: Option<String>,
}

#[derive(ToSchema)]
pub(crate) struct SentencesToTokenize {
    #[schema(schema_with = one_or_several)]
    sentence: String,
    /// Whether the response has the ids and positions of tokens, too.
    #[schema(default = false, nullable = false)]
    details: Option<bool>,
}

/// A request of this service, or one of text-embeddings-inference.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum EmbedBody {
    Sentences(SentencesToEmbed),
    Tei(TeiBody),
}

/// The request of Hugging Face's text-embeddings-inference. Other fields are ignored.
#[derive(Serialize, ToSchema)]
#[schema(title = "text-embeddings-inference")]
pub(crate) struct TeiBody {
    #[schema(schema_with = one_text_or_several)]
    inputs: String,
    /// Whether tokens beyond the maximum of a sentence are removed; otherwise such a text is an
    /// error.
    #[schema(default = false)]
    truncate: Option<bool>,
    #[schema(schema_with = truncation_direction, required = false)]
    truncation_direction: String,
    /// The vectors of the model have norm 1 in either case; false has an effect on `dimensions`.
    #[schema(default = true)]
    normalize: Option<bool>,
    /// Number of components of a vector: the first ones, scaled to norm 1 unless `normalize` is
    /// false. The model was not trained for shorter vectors: they are less exact.
    #[schema(minimum = 1, maximum = 512)]
    dimensions: Option<u32>,
    #[schema(schema_with = only_null, required = false)]
    prompt_name: (),
    #[schema(schema_with = form, required = false)]
    format: String,
}

fn one_text_or_several() -> RefOr<Schema> {
    let text = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let several = ArrayBuilder::new().items(text()).min_items(Some(1)).max_items(Some(MAX_SENTENCES));
    AnyOfBuilder::new()
        .description(Some("One text or several, which must not be empty. Token ids and pairs are rejected."))
        .item(text())
        .item(several)
        .examples(["Where is the library?".into(), serde_json::json!(["Hello", "Merhaba"])])
        .into()
}

fn truncation_direction() -> RefOr<Schema> {
    let names = ObjectBuilder::new().enum_values(Some([
        serde_json::json!("Left"),
        "left".into(),
        "Right".into(),
        "right".into(),
        serde_json::Value::Null,
    ]));
    let kinds = SchemaType::from_iter([Type::String, Type::Null]);
    let names = names.schema_type(kinds).default(Some("Right".into()));
    names.description(Some("The end of a text from which tokens are removed.")).into()
}

const FORMAT: &str = "The format of the response; it takes precedence over `Accept`. `npy` is a NumPy file \
    of float32; `float16` and `int8` are NumPy files of these types. In `int8` the largest component of each \
    vector is 127 or -127: compute cosines, or divide each vector by its norm.";

fn form() -> RefOr<Schema> {
    let names =
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["json", "npy", "float16", "int8"]));
    names.description(Some(FORMAT)).into()
}

fn only_null() -> RefOr<Schema> {
    let schema = ObjectBuilder::new().schema_type(Type::Null);
    schema.description(Some("The model has no prompts: any name is rejected.")).into()
}

#[derive(Serialize, ToSchema)]
pub(crate) struct SentencesToEmbed {
    #[schema(schema_with = one_or_several)]
    sentence: String,
    #[schema(schema_with = form, required = false)]
    format: String,
}

fn one_or_several() -> RefOr<Schema> {
    let scalar = || {
        let kinds = [Type::String, Type::Number, Type::Boolean];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds))
    };
    let several = ArrayBuilder::new().items(scalar()).min_items(Some(1)).max_items(Some(MAX_SENTENCES));
    AnyOfBuilder::new()
        .description(Some(
            "One sentence or several. Numbers and booleans are converted to text; an empty sentence is valid.",
        ))
        .item(scalar())
        .item(several)
        .examples(["This is sentence example.".into(), serde_json::json!(["Hello", "Merhaba"])])
        .into()
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SentencesInQuery {
    /// One sentence or several.
    #[param(style = Form, explode, min_items = 1, example = json!(["This is sentence example."]))]
    sentence: Vec<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DetailsInQuery {
    /// Whether the response has the ids and positions of tokens, too.
    #[param(nullable = false)]
    details: Option<bool>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct FormInQuery {
    /// The format of the response, as in POST; it takes precedence over `Accept`.
    #[param(inline, nullable = false)]
    format: Option<Form>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Json,
    Npy,
    Float16,
    Int8,
}

#[derive(ToSchema)]
pub(crate) struct Tokens {
    /// The SentencePiece tokens of each sentence.
    #[schema(example = json!([["▁This", "▁is", "▁sentence", "▁example", "."]]))]
    tokens: Vec<Vec<String>>,
    /// With `details`: the id of each token in the vocabulary.
    #[schema(nullable = false, example = json!([[1, 2, 3, 4, 5]]))]
    ids: Option<Vec<Vec<u32>>>,
    /// With `details`: the start and the end of each token in its sentence, in bytes of UTF-8.
    #[schema(nullable = false, example = json!([[[0, 4], [4, 7], [7, 16], [16, 24], [24, 25]]]))]
    bytes: Option<Vec<Vec<[u32; 2]>>>,
    /// With `details`: the same in characters (Unicode scalar values).
    #[schema(nullable = false, example = json!([[[0, 4], [4, 7], [7, 16], [16, 24], [24, 25]]]))]
    chars: Option<Vec<Vec<[u32; 2]>>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Embeddings {
    /// 512 numbers for each sentence, of norm 1.
    embedding: Vec<Vec<f32>>,
}

/// The response to `sentence`, or that to `inputs`.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Vectors {
    Sentences(Embeddings),
    /// 512 numbers for each text, or as many as `dimensions`.
    Tei(Vec<Vec<f32>>),
}

#[derive(ToSchema)]
#[schema(
    description = format!("A NumPy file: an array of float32 (or the requested type), a row of {DIMENSION} (or `dimensions`) for each sentence."),
    value_type = String,
    format = Binary,
)]
pub(crate) struct Npy(Vec<u8>);

#[derive(ToSchema)]
pub(crate) struct Jwks {
    keys: Vec<Jwk>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(ToSchema)]
pub(crate) struct Jwk {
    #[schema(example = "OKP")]
    kty: String,
    #[schema(example = "Ed25519")]
    crv: String,
    /// The key's id, as in the header of the tokens that it signs.
    kid: String,
    /// The key, base64url without padding.
    x: String,
    #[schema(example = "EdDSA")]
    alg: String,
    r#use: String,
}

/// The errors of a token.
pub(crate) struct TokenErrors;

impl IntoResponses for TokenErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let mut responses = errors::<Refused>(&[
            (401, "There is no token and no API key, or it has expired or was revoked"),
            (422, "The token is malformed, of the wrong kind, or not issued by this service"),
        ]);
        responses.extend(errors::<Failed>(&[
            (403, "An API key does not permit this"),
            (500, "An internal error"),
            (503, "The embedder or the auth service is unavailable"),
            (504, "The deadline has passed"),
        ]));
        responses
    }
}

/// The errors of arguments.
pub(crate) struct ArgumentErrors;

impl IntoResponses for ArgumentErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        errors::<Failed>(&[
            (400, "The request is malformed, or an argument is missing or invalid"),
            (408, "The body did not arrive in time"),
            (412, FINGERPRINT_MISMATCH),
            (413, "The request is larger than a limit allows"),
            (415, UNSUPPORTED_ENCODING),
            (
                429,
                "The service is overloaded, a limit on open requests is exceeded, or the quota is exhausted",
            ),
        ])
    }
}
