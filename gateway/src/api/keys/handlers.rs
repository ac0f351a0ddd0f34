//! The handlers: each makes one call to the auth service.

use axum::{
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use muse_proto::{
    Error, Reason,
    v1::{
        CreateKeyRequest, DeleteKeyRequest, DescribeKeyRequest, GetKeyRequest, ListKeysRequest,
        UpdateKeyRequest,
    },
};

use super::schemas::{
    CreatedKey, KeyChange, KeyDescription, KeyErrors, KeyList, KeyListQuery, NewKey, NotFound, TooManyKeys,
};
use crate::{
    api::{
        http_response::json,
        json_request::{WholeNumber, read_json},
        paging::{list_failure, next, page_size},
        problem::{BodyErrors, Problem},
        quota::Quota,
        request::on_behalf_of,
        resource::{self, described},
    },
    auth::User,
    upstream::Upstream,
};

/// Create an API key
///
/// The key is in the response and cannot be read again: only its SHA-256 is stored. It permits
/// embedding and tokenizing.
#[utoipa::path(
    post,
    path = "/api/keys",
    tag = "Keys",
    operation_id = "createKey",
    request_body = NewKey,
    responses(
        (status = 201, description = "The key", body = CreatedKey, headers(("Location" = String))),
        KeyErrors, BodyErrors, NotFound, TooManyKeys,
    ),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn create(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, Problem> {
    let (head, new): (Parts, NewKey) = read_json(&upstream, &user, request).await?;
    let message = CreateKeyRequest {
        name: new.name,
        expires_in: new.expires_in.map_or(0, |WholeNumber(seconds)| seconds),
        bulk: new.bulk,
        username: new.user.unwrap_or_default(),
        quota: new.quota.map(Quota::message).transpose()?,
    };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let created = upstream.key_client().create_key(call).await?.into_inner();
    let description: KeyDescription = described(created.key)?;
    let location = format!("/api/keys/{}", description.id());
    resource::created(location, &CreatedKey { key: created.secret_key, description })
}

/// List API keys
///
/// By `created_at`. The order of keys that were created in the same second is arbitrary, but does not change.
#[utoipa::path(
    get,
    path = "/api/keys",
    tag = "Keys",
    operation_id = "listKeys",
    params(KeyListQuery),
    responses((status = 200, description = "The keys", body = KeyList), KeyErrors, NotFound),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn list(
    State(upstream): State<Upstream>,
    _: User,
    query: Result<Query<KeyListQuery>, QueryRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let Query(query) = query.map_err(|_| {
        Error::new(Reason::InvalidArgument, "The query takes user, all (true or false), limit and after")
    })?;
    let message = ListKeysRequest {
        page_size: page_size(query.limit)?,
        page_token: query.after.unwrap_or_default(),
        username: query.user.unwrap_or_default(),
        all_users: query.all,
    };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let page =
        upstream.key_client().list_keys(call).await.map_err(|status| list_failure(&status))?.into_inner();
    let keys = page.keys.into_iter().map(KeyDescription::from).collect();
    Ok(json(StatusCode::OK, &KeyList { keys, next: next(page.next_page_token) }))
}

/// Retrieve an API key
///
/// Its description: the key itself is not stored.
#[utoipa::path(
    get,
    path = "/api/keys/{id}",
    tag = "Keys",
    operation_id = "retrieveKey",
    params(("id" = String, Path, description = "Its id", example = "q5dmhtx2yo7a")),
    responses((status = 200, description = "The key", body = KeyDescription), KeyErrors, NotFound),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn retrieve(
    State(upstream): State<Upstream>,
    _: User,
    id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let call = on_behalf_of(&head.headers, &head.extensions, GetKeyRequest { id: id_or_empty(id) });
    let key = upstream.key_client().get_key(call).await?.into_inner().key;
    Ok(json(StatusCode::OK, &described::<_, KeyDescription>(key)?))
}

/// Change an API key
///
/// Changes the fields that are present.
#[utoipa::path(
    patch,
    path = "/api/keys/{id}",
    tag = "Keys",
    operation_id = "updateKey",
    params(("id" = String, Path, description = "Its id", example = "q5dmhtx2yo7a")),
    request_body = KeyChange,
    responses(
        (status = 200, description = "The key as changed", body = KeyDescription),
        KeyErrors, BodyErrors, NotFound,
    ),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn update(
    State(upstream): State<Upstream>,
    user: User,
    id: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, change): (Parts, KeyChange) = read_json(&upstream, &user, request).await?;
    let message = UpdateKeyRequest {
        id: id_or_empty(id),
        name: change.name,
        disabled: change.disabled,
        expires_in: change.expires_in.map(|seconds| seconds.map_or(0, |WholeNumber(seconds)| seconds)),
        bulk: change.bulk,
        quota: change.quota.map(Quota::message_or_none).transpose()?,
    };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let key = upstream.key_client().update_key(call).await?.into_inner().key;
    Ok(json(StatusCode::OK, &described::<_, KeyDescription>(key)?))
}

/// Delete an API key
///
/// It is rejected from then on, within 250 ms by every service. Its id is never used again.
#[utoipa::path(
    delete,
    path = "/api/keys/{id}",
    tag = "Keys",
    operation_id = "deleteKey",
    params(("id" = String, Path, description = "Its id", example = "q5dmhtx2yo7a")),
    responses((status = 204, description = "It is deleted"), KeyErrors, NotFound),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn delete(
    State(upstream): State<Upstream>,
    _: User,
    id: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let call = on_behalf_of(&head.headers, &head.extensions, DeleteKeyRequest { id: id_or_empty(id) });
    upstream.key_client().delete_key(call).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Describe the presented API key
///
/// The description of the key in `Authorization`.
#[utoipa::path(
    get,
    path = "/api/key",
    tag = "Keys",
    operation_id = "describeKey",
    responses((status = 200, description = "The key", body = KeyDescription), KeyErrors),
    security(("api_key" = [])),
)]
pub(crate) async fn describe(
    State(upstream): State<Upstream>,
    _: User,
    head: Parts,
) -> Result<Response, Problem> {
    let call = on_behalf_of(&head.headers, &head.extensions, DescribeKeyRequest {});
    let key = upstream.key_client().describe_key(call).await?.into_inner().key;
    Ok(json(StatusCode::OK, &described::<_, KeyDescription>(key)?))
}

/// The id in the path. What is not UTF-8 is no key's id.
fn id_or_empty(id: Result<Path<String>, PathRejection>) -> String {
    id.map_or_else(|_| String::new(), |Path(id)| id)
}
