//! The REST routes in the OpenAPI document.
//!
//! They are described here and not beside their handlers, because a handler takes several methods, whose arguments differ.

#![expect(dead_code, reason = "only the document is made from this")]

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{
        self, RefOr,
        schema::{AnyOfBuilder, ArrayBuilder, ObjectBuilder, Schema, SchemaType, Type},
    },
};

use super::errors;
use crate::problem::Body;

/// Why a token or a password is refused.
#[derive(ToSchema)]
pub(super) struct Refused {
    #[schema(example = "Token has expired")]
    msg: String,
}

/// What a request did, or why it failed.
#[derive(ToSchema)]
pub(super) struct Said {
    #[schema(example = "Access token has been revoked")]
    message: String,
}

/// Why a request failed.
#[derive(ToSchema)]
pub(super) struct Failed {
    #[schema(inline)]
    message: Failure,
    /// What is wrong with a JSON body, and where.
    #[schema(nullable = false)]
    detail: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Failure {
    Text(String),
    /// By the name of an argument.
    Arguments(BTreeMap<String, String>),
}

#[derive(ToSchema)]
struct Login {
    #[schema(example = "admin")]
    username: String,
    #[schema(example = "admin", format = Password)]
    password: String,
}

#[derive(ToSchema)]
struct LoggedIn {
    #[schema(example = "Logged in as admin")]
    message: String,
    /// For every other route.
    access_token: String,
    /// For `/token/refresh`.
    refresh_token: String,
}

#[derive(ToSchema)]
struct Refreshed {
    #[schema(example = "Access token has been refreshed")]
    message: String,
    access_token: String,
    /// In place of the one that was sent; only where refresh tokens rotate.
    #[schema(nullable = false)]
    refresh_token: Option<String>,
}

#[derive(ToSchema)]
struct Sentences {
    #[schema(schema_with = one_or_several)]
    sentence: String,
}

#[derive(ToSchema)]
struct SentencesToEmbed {
    #[schema(schema_with = one_or_several)]
    sentence: String,
    /// The form of the answer; it counts more than `Accept`.
    #[schema(nullable = false, inline)]
    format: Option<Form>,
}

fn one_or_several() -> RefOr<Schema> {
    let scalar = || {
        let kinds = [Type::String, Type::Number, Type::Boolean];
        ObjectBuilder::new().schema_type(SchemaType::from_iter(kinds))
    };
    let several = ArrayBuilder::new().items(scalar()).min_items(Some(1)).max_items(Some(4_096));
    AnyOfBuilder::new()
        .description(Some(
            "One or several. Numbers and booleans count as their text; an empty sentence is one, too.",
        ))
        .item(scalar())
        .item(several)
        .examples(["This is sentence example.".into(), serde_json::json!(["Hello", "Merhaba"])])
        .into()
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct SentencesInQuery {
    /// Once or more.
    #[param(style = Form, explode, min_items = 1, example = json!(["This is sentence example."]))]
    sentence: Vec<String>,
}

#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
struct FormInQuery {
    /// The form of the answer; it counts more than `Accept`.
    #[param(inline, nullable = false)]
    format: Option<Form>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum Form {
    Json,
    Npy,
}

#[derive(ToSchema)]
struct Tokens {
    /// The SentencePiece tokens of each sentence.
    #[schema(example = json!([["▁This", "▁is", "▁sentence", "▁example", "."]]))]
    tokens: Vec<Vec<String>>,
}

#[derive(ToSchema)]
struct Embeddings {
    /// 512 numbers for each sentence, of norm 1.
    embedding: Vec<Vec<f32>>,
}

/// A file of NumPy: an array of float32, a row of 512 for each sentence.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
struct Npy(Vec<u8>);

#[derive(ToSchema)]
struct Jwks {
    keys: Vec<Jwk>,
}

/// A public Ed25519 key (RFC 8037).
#[derive(ToSchema)]
struct Jwk {
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

/// What is wrong with a token.
struct TokenErrors;

impl IntoResponses for TokenErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        let mut responses = errors::<Refused>(&[
            (401, "There is no token, or it has expired or was revoked"),
            (422, "The token is malformed, of the other kind, or not one of ours"),
        ]);
        responses.extend(errors::<Failed>(&[
            (500, "A fault of the service"),
            (503, "The service behind is away, or has been for too long to know which tokens hold"),
            (504, "The deadline has passed"),
        ]));
        responses
    }
}

/// What is wrong with arguments.
struct ArgumentErrors;

impl IntoResponses for ArgumentErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        errors::<Failed>(&[
            (400, "The request is malformed, or an argument is missing or wrong"),
            (408, "The body did not arrive in time"),
            (413, "The request is larger than a limit allows"),
            (415, "The body has a Content-Encoding other than gzip, deflate and zstd"),
            (429, "More work is waiting than the service accepts"),
        ])
    }
}

/// Log in
///
/// Exchanges a name and a password for tokens, in the body and in cookies. Who fails too often has to wait.
#[utoipa::path(
    post,
    path = "/login",
    tag = "Tokens",
    operation_id = "login",
    request_body(content((Login = "application/json"), (Login = "application/x-www-form-urlencoded"))),
    responses(
        (status = 200, description = "The tokens", body = LoggedIn),
        (status = 400, description = "An argument is missing or malformed", body = Failed),
        (status = 401, description = "The name or the password is wrong", body = Refused,
            headers(("WWW-Authenticate" = String))),
        (status = 408, description = "The body did not arrive in time", body = Failed),
        (status = 413, description = "The body is larger than 64 KiB", body = Failed),
        (status = 415, description = "The body has a Content-Encoding other than gzip, deflate and zstd",
            body = Failed),
        (status = 429, description = "Too many failed logins, of this name or from this address", body = Failed,
            headers(("Retry-After" = u64, description = "Seconds to wait before another try"))),
        (status = 500, description = "A fault of the service", body = Failed),
        (status = 503, description = "The auth service is away", body = Failed,
            headers(("Retry-After" = u64, description = "Seconds to wait before another try"))),
        (status = 504, description = "The deadline has passed", body = Failed),
    ),
)]
pub(super) fn login() {}

/// A new access token
#[utoipa::path(
    post,
    path = "/token/refresh",
    tag = "Tokens",
    operation_id = "refreshToken",
    responses((status = 200, description = "The token", body = Refreshed), TokenErrors),
    security(("refresh_token" = []), ("refresh_token_cookie" = [])),
)]
pub(super) fn refresh() {}

/// Revoke the access token
#[utoipa::path(
    post,
    path = "/logout/access",
    tag = "Tokens",
    operation_id = "logoutAccess",
    responses((status = 200, description = "It is revoked", body = Said), TokenErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(super) fn logout_access() {}

/// Revoke the refresh token
#[utoipa::path(
    post,
    path = "/logout/refresh",
    tag = "Tokens",
    operation_id = "logoutRefresh",
    responses((status = 200, description = "It is revoked", body = Said), TokenErrors),
    security(("refresh_token" = []), ("refresh_token_cookie" = [])),
)]
pub(super) fn logout_refresh() {}

/// Log out, with cookies
///
/// Revokes the tokens in the cookies, as far as they hold, and has the client forget them.
#[utoipa::path(
    post,
    path = "/logout",
    tag = "Tokens",
    operation_id = "logout",
    responses(
        (status = 200, description = "No cookie holds any more", body = Said),
        (status = 500, description = "A fault of the service", body = Failed),
        (status = 503, description = "The auth service is away", body = Failed),
        (status = 504, description = "The deadline has passed", body = Failed),
    ),
    security(("access_token_cookie" = [], "refresh_token_cookie" = []), ()),
)]
pub(super) fn logout() {}

/// Tokens of sentences
///
/// A request line has no room for many sentences: POST has.
#[utoipa::path(
    get,
    path = "/tokenize",
    tag = "Sentences",
    operation_id = "tokenize",
    params(SentencesInQuery),
    responses((status = 200, description = "The tokens", body = Tokens), ArgumentErrors, TokenErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(super) fn get_tokenize() {}

/// Tokens of many sentences
///
/// At most 4,096 sentences, 262,144 bytes a sentence, 16 MiB in all; nothing is ever cut off.
#[utoipa::path(
    post,
    path = "/tokenize",
    tag = "Sentences",
    operation_id = "tokenizeMany",
    request_body(content((Sentences = "application/json"))),
    responses((status = 200, description = "The tokens", body = Tokens), ArgumentErrors, TokenErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(super) fn post_tokenize() {}

/// Vectors of sentences
///
/// A request line has no room for many sentences: POST has.
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
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(super) fn get_embed() {}

/// Vectors of many sentences
///
/// At most 4,096 sentences, 262,144 bytes and 8,192 tokens a sentence, 262,144 tokens and 16 MiB in all; nothing is ever
/// cut off.
#[utoipa::path(
    post,
    path = "/embed",
    tag = "Sentences",
    operation_id = "embedMany",
    request_body(content((SentencesToEmbed = "application/json"))),
    responses(
        (status = 200, description = "The vectors",
            content((Embeddings = "application/json"), (Npy = "application/octet-stream"))),
        ArgumentErrors,
        TokenErrors,
    ),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(super) fn post_embed() {}

/// The public keys
///
/// With them anyone can verify a token (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "Service",
    operation_id = "jwks",
    responses(
        (status = 200, description = "The keys", body = Jwks, content_type = "application/jwk-set+json"),
        (status = 503, description = "The service is not ready", body = Body<'static>,
            content_type = "application/problem+json",
            headers(("Retry-After" = u64, description = "Seconds to wait before another try"))),
    ),
)]
pub(super) fn jwks() {}
