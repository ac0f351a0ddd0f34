//! Swagger UI, at `/docs`.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use muse_verifier::Verifier;
use tracing::error;
use utoipa_swagger_ui::{Config, serve};

use crate::{
    Cookies,
    api::routing::not_found,
    auth::{ApiRouter, Routes},
};

type Ui = Arc<Config<'static>>;

pub(super) fn routes(verifier: &Verifier) -> ApiRouter {
    Routes::new(verifier, Cookies::Off)
        .public_route("/docs", get(async || Redirect::permanent("/docs/")))
        .public_route("/docs/", get(file))
        .public_route("/docs/{name}", get(file))
        .with_state(Arc::new(Config::new(["/openapi.json"])))
}

async fn file(State(ui): State<Ui>, request: Request) -> Response {
    let name = request.uri().path().strip_prefix("/docs/").unwrap_or_default();
    let found = match serve(name, ui) {
        Ok(found) => found,
        Err(failure) => {
            error!(%failure, "Swagger UI cannot be configured");
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
    };
    match found {
        Some(file) => ([(header::CONTENT_TYPE, file.content_type)], file.bytes).into_response(),
        None => not_found(request).await,
    }
}
