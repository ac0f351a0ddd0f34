//! The handlers: `/api/status` asks each embedder that serves.

use std::time::Duration;

use axum::{
    extract::State,
    http::{StatusCode, request::Parts},
    response::Response,
};
use futures::{StreamExt, stream::FuturesOrdered};
use muse_balancer::ServingEmbedder;
use muse_proto::{
    Reason,
    v1::{GetModelRequest, GetStatusRequest, embedder_service_client::EmbedderServiceClient},
};
use tokio::time::timeout;
use tracing::debug;

use super::schemas::{EmbedderStatus, Readiness, ServedModel, ServiceStatus, StatusErrors};
use crate::{
    api::{
        http_response::json,
        problem::Problem,
        request::{embedder_call, on_behalf_of},
    },
    auth::User,
    upstream::{Upstream, failure},
};

/// Time for the response of an embedder. One that takes longer is left out.
const EMBEDDER_WITHIN: Duration = Duration::from_secs(2);

/// The state of the service
///
/// The model and its limits, and for each embedder its fingerprint, its queue and the activity of the last ten minutes. Embedders that
/// do not respond within two seconds are left out. The status is 200 also if no embedder describes the model within that time: then the
/// model is null, and `problem` is the reason.
#[utoipa::path(
    get,
    path = "/api/status",
    tag = "Service",
    operation_id = "status",
    responses((status = 200, description = "The state", body = ServiceStatus), StatusErrors),
    security(("access_token" = []), ("access_token_cookie" = []), ("api_key" = [])),
)]
pub(crate) async fn status(
    State(upstream): State<Upstream>,
    _: User,
    head: Parts,
) -> Result<Response, Problem> {
    let (model, embedders) =
        tokio::join!(describe_model(&upstream, &head), embedder_statuses(&upstream, &head));
    let counts = upstream.embedder.counts();
    Ok(json(StatusCode::OK, &ServiceStatus::new(model?, counts, embedders)))
}

/// The model, or the reason why no embedder describes it.
async fn describe_model(upstream: &Upstream, head: &Parts) -> Result<Result<ServedModel, String>, Problem> {
    let call = embedder_call(&head.headers, &head.extensions, GetModelRequest {});
    let mut client = upstream.embedder_client();
    match timeout(EMBEDDER_WITHIN, client.get_model(call)).await {
        Ok(Ok(model)) => ServedModel::new(model.into_inner()).map(Ok).ok_or_else(Problem::fault),
        Err(_) => Ok(Err("no embedder responds in time".to_owned())),
        Ok(Err(status)) => match failure(&status) {
            error if error.reason() == Reason::Unavailable => Ok(Err(error.message().to_owned())),
            error => Err(error.into()),
        },
    }
}

/// The responses of the embedders that serve, also of those with another model.
async fn embedder_statuses(upstream: &Upstream, head: &Parts) -> Vec<EmbedderStatus> {
    let responses = upstream.embedder.serving_embedders().into_iter().map(|embedder| {
        let ServingEmbedder { channel, fingerprint, used } = embedder;
        let call = on_behalf_of(&head.headers, &head.extensions, GetStatusRequest {});
        async move {
            let response =
                timeout(EMBEDDER_WITHIN, EmbedderServiceClient::new(channel).get_status(call)).await;
            let response =
                response.inspect_err(|_| debug!("an embedder does not report its status in time")).ok()?;
            let response =
                response.inspect_err(|status| debug!(%status, "an embedder does not report its status"));
            response.ok().map(|response| EmbedderStatus::new(response.into_inner(), fingerprint, used))
        }
    });
    let responses: FuturesOrdered<_> = responses.collect();
    responses.filter_map(async |status| status).collect().await
}

/// Whether the service can embed
///
/// Whether the gateway has the keys and revocations of the auth service, and an embedder serves.
#[utoipa::path(
    get,
    path = "/api/ready",
    tag = "Service",
    operation_id = "ready",
    responses((status = 200, description = "Whether it can", body = Readiness)),
)]
pub(crate) async fn ready(State(upstream): State<Upstream>) -> Response {
    let ready = upstream.verifier.synced() && *upstream.embedder.serving().borrow();
    json(StatusCode::OK, &Readiness { ready })
}
