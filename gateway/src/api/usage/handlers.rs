//! The handler: it makes one call to the auth service.

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    http::{StatusCode, request::Parts},
    response::Response,
};
use muse_proto::{Error, Reason, v1::ListUsageRequest};

use super::schemas::{UsageErrors, UsageGrouping, UsageList, UsageListQuery, UsageRow, start_of_day};
use crate::{
    api::{
        http_response::json,
        paging::{list_failure, next, page_size},
        problem::Problem,
        request::on_behalf_of,
    },
    auth::User,
    upstream::Upstream,
};

/// List usage
///
/// One's own; for admins that of all users; with an API key that of the key. The embedders report it
/// every two seconds. Groups without usage are left out.
#[utoipa::path(
    get,
    path = "/api/usage",
    tag = "Usage",
    operation_id = "listUsage",
    params(UsageListQuery),
    responses((status = 200, description = "The usage", body = UsageList), UsageErrors),
    security(("access_token" = []), ("access_token_cookie" = []), ("api_key" = [])),
)]
pub(crate) async fn list(
    State(upstream): State<Upstream>,
    _: User,
    query: Result<Query<UsageListQuery>, QueryRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| {
        let text = "The query takes from and to (days such as 2026-11-29), by (day, user, key or hour), user, \
                    key_id, limit and after";
        Error::new(Reason::InvalidArgument, text)
    })?;
    let by = query.by;
    let message = ListUsageRequest {
        from: query.from.map(|day| start_of_day("from", &day)).transpose()?,
        to: query.to.map(|day| start_of_day("to", &day)).transpose()?,
        grouping: by.map(UsageGrouping::message).unwrap_or_default().into(),
        username: query.user.unwrap_or_default(),
        key_id: query.key_id.unwrap_or_default(),
        page_size: page_size(query.limit)?,
        page_token: query.after.unwrap_or_default(),
    };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let page =
        upstream.usage_client().list_usage(call).await.map_err(|status| list_failure(&status))?.into_inner();
    let usage = page.usage.into_iter().map(|row| UsageRow::new(row, by)).collect();
    Ok(json(StatusCode::OK, &UsageList { usage, next: next(page.next_page_token) }))
}
