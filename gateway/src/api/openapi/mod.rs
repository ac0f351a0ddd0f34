//! The OpenAPI document, generated from the code: at `/openapi.json`, and as Swagger UI at `/docs`.

mod fingerprint;
mod ui;

use std::{collections::BTreeMap, sync::LazyLock};

use axum::{http::StatusCode, response::Response, routing::get};
use muse_verifier::Verifier;
use utoipa::{
    Modify, OpenApi, ToSchema,
    openapi::{
        self, HeaderBuilder, Ref, RefOr, ResponseBuilder,
        content::ContentBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{http_response::json, keys, openai, problem, rest, status, usage, users};
use crate::{
    Cookies,
    auth::{ApiRouter, Routes},
};
use fingerprint::FingerprintHeader;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "MUSE as Service",
        description = "Turns text in 16 languages into vectors that can be compared across languages, and into tokens.",
    ),
    paths(
        rest::auth::login,
        rest::auth::refresh,
        rest::auth::logout_access,
        rest::auth::logout_refresh,
        rest::auth::logout,
        rest::embedder::tokenize,
        rest::embedder::tokenize_many,
        rest::embedder::embed,
        rest::embedder::embed_many,
        keys::handlers::create,
        keys::handlers::list,
        keys::handlers::retrieve,
        keys::handlers::update,
        keys::handlers::delete,
        keys::handlers::describe,
        users::handlers::add,
        users::handlers::list,
        users::handlers::describe,
        users::handlers::retrieve,
        users::handlers::update,
        users::handlers::remove,
        users::handlers::revoke_tokens,
        usage::handlers::list,
        status::handlers::status,
        status::handlers::ready,
        openai::embeddings::create,
        openai::models::list,
        openai::models::retrieve,
        rest::jwks::jwks,
        document,
    ),
    components(schemas(openai::response::ErrorBody, problem::Body<'static>, rest::schemas::Failed, rest::schemas::Refused)),
    modifiers(&Tokens, &FingerprintHeader),
    tags(
        (name = "Sentences"),
        (name = "Tokens", description = "Login, refresh and logout"),
        (name = "Keys", description = "API keys, for programs that cannot log in"),
        (name = "Users", description = "Users and their tokens, for admins"),
        (name = "Usage", description = "Requests, sentences and tokens by user and API key"),
        (name = "OpenAI", description = "OpenAI's API for embeddings, with an API key or an access token as its key"),
        (name = "Service", description = "Public routes"),
    ),
)]
struct Document;

static DOCUMENT: LazyLock<openapi::OpenApi> = LazyLock::new(Document::openapi);

pub(crate) fn routes(verifier: &Verifier) -> ApiRouter {
    let document = Routes::new(verifier, Cookies::Off).public_route("/openapi.json", get(document));
    document.with_state(()).merge(ui::routes(verifier))
}

/// The OpenAPI document
#[utoipa::path(
    get,
    path = "/openapi.json",
    tag = "Service",
    operation_id = "openapi",
    responses((status = 200, description = "OpenAPI 3.1", body = Object, content_type = "application/json")),
)]
async fn document() -> Response {
    json(StatusCode::OK, &*DOCUMENT)
}

/// The security schemes.
struct Tokens;

impl Modify for Tokens {
    fn modify(&self, document: &mut openapi::OpenApi) {
        let bearer = |text| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT");
            SecurityScheme::Http(scheme.description(Some(text)).build())
        };
        let components = document.components.get_or_insert_default();
        let key = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key: `muse_…`. It permits embedding and tokenizing"));
        components.add_security_scheme("api_key", SecurityScheme::Http(key.build()));
        components
            .add_security_scheme("access_token", bearer("An access token, by default valid for 24 hours"));
        components
            .add_security_scheme("refresh_token", bearer("A refresh token, by default valid for 30 days"));
        for (name, text) in [
            (
                "access_token_cookie",
                "An access token, as `/login` sets it; used if there is no `Authorization`",
            ),
            (
                "refresh_token_cookie",
                "A refresh token, as `/login` sets it; used if there is no `Authorization`",
            ),
        ] {
            let cookie = ApiKey::Cookie(ApiKeyValue::with_description(name, text));
            components.add_security_scheme(name, SecurityScheme::ApiKey(cookie));
        }
    }
}

/// JSON error responses with bodies of type `T`, by status.
pub(crate) fn errors<T: ToSchema>(statuses: &[(u16, &str)]) -> BTreeMap<String, RefOr<openapi::Response>> {
    error_responses::<T>("application/json", statuses)
}

/// Error responses of a media type with bodies of type `T`, by status.
pub(crate) fn error_responses<T: ToSchema>(
    media_type: &str,
    statuses: &[(u16, &str)],
) -> BTreeMap<String, RefOr<openapi::Response>> {
    let response = |status: u16, description: &str| {
        let content = ContentBuilder::new().schema(Some(Ref::from_schema_name(T::name()))).build();
        let response = ResponseBuilder::new().description(description).content(media_type, content);
        match status {
            429 | 503 => {
                let header = HeaderBuilder::new().description(Some("Seconds to wait before a retry"));
                response.header("Retry-After", header.build())
            }
            _ => response,
        }
    };
    statuses
        .iter()
        .map(|&(status, text)| (status.to_string(), response(status, text).build().into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::limits::DIMENSION;

    /// The document is committed, so that a review shows changes of the API.
    #[test]
    fn committed_openapi_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
        let generated = DOCUMENT.to_pretty_json().unwrap() + "\n";
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(path, &generated).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            generated == committed,
            "gateway/openapi.json is not up to date; generate it with\n\
             UPDATE=1 cargo test --release -p muse-gateway openapi"
        );
    }
    /// utoipa accepts only literals in these places.
    #[test]
    fn literals_in_the_document_match_the_constants() {
        let document = serde_json::to_value(&*DOCUMENT).unwrap();
        let schemas = &document["components"]["schemas"];
        assert_eq!(schemas["EmbeddingRequest"]["properties"]["dimensions"]["maximum"], DIMENSION);
        // Two types of one name would replace each other.
        assert!(schemas["UsageRow"]["properties"]["refused"].is_object());
        assert!(schemas["Usage"]["properties"]["prompt_tokens"].is_object());
        let description = schemas["Embeddings"]["properties"]["embedding"]["description"].as_str().unwrap();
        assert!(description.starts_with(&format!("{DIMENSION} numbers")), "{description}");
    }
}
