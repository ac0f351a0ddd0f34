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
    limits::{DIMENSION, MAX_SENTENCES, UNSUPPORTED_ENCODING},
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
    /// The error in a JSON body, with its position.
    #[schema(nullable = false)]
    detail: Option<String>,
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
pub(crate) struct Sentences {
    #[schema(schema_with = one_or_several)]
    sentence: String,
}

#[derive(ToSchema)]
pub(crate) struct SentencesToEmbed {
    #[schema(schema_with = one_or_several)]
    sentence: String,
    /// The format of the response; it takes precedence over `Accept`.
    #[schema(nullable = false, inline)]
    format: Option<Form>,
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
pub(crate) struct FormInQuery {
    /// The format of the response; it takes precedence over `Accept`.
    #[param(inline, nullable = false)]
    format: Option<Form>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Form {
    Json,
    Npy,
}

#[derive(ToSchema)]
pub(crate) struct Tokens {
    /// The SentencePiece tokens of each sentence.
    #[schema(example = json!([["▁This", "▁is", "▁sentence", "▁example", "."]]))]
    tokens: Vec<Vec<String>>,
}

#[derive(ToSchema)]
pub(crate) struct Embeddings {
    /// 512 numbers for each sentence, of norm 1.
    embedding: Vec<Vec<f32>>,
}

#[derive(ToSchema)]
#[schema(
    description = format!("A NumPy file: an array of float32, a row of {DIMENSION} for each sentence."),
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
            (413, "The request is larger than a limit allows"),
            (415, UNSUPPORTED_ENCODING),
            (429, "The service is overloaded, or a limit on open requests is exceeded"),
        ])
    }
}
