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
        self, AddUserRequest, GetUserRequest, ListUsersRequest, RemoveUserRequest, RevokeUserTokensRequest,
        SetDisabledRequest, SetPasswordRequest, SetQuotaRequest, SetRoleRequest,
    },
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::schemas::{
    DisabledChange, LastAdmin, NameInUse, NewUser, NoSuchUser, PasswordChange, QuotaChange,
    RevokeTokensQuery, RoleChange, UserDescription, UserErrors, UserList, UserListQuery, UserPatch,
};
use crate::{
    api::{
        http_response::json,
        json_request::read_json,
        paging::{list_failure, next, page_size},
        problem::{BodyErrors, Problem},
        quota::Quota,
        request::on_behalf_of,
        resource::{self, described},
    },
    auth::User,
    upstream::Upstream,
};

/// The unreserved characters of RFC 3986, section 2.3, are not escaped in a path.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Add a user
///
/// For admins.
#[utoipa::path(
    post,
    path = "/api/users",
    tag = "Users",
    operation_id = "addUser",
    request_body = NewUser,
    responses(
        (status = 201, description = "The user", body = UserDescription, headers(("Location" = String))),
        UserErrors, BodyErrors, NameInUse,
    ),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn add(
    State(upstream): State<Upstream>,
    user: User,
    request: Request,
) -> Result<Response, Problem> {
    let (head, new): (Parts, NewUser) = read_json(&upstream, &user, request).await?;
    let message = AddUserRequest {
        username: new.username,
        password: new.password,
        role: v1::Role::from(new.role).into(),
    };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let added = upstream.user_client().add_user(call).await?.into_inner();
    let description: UserDescription = described(added.user)?;
    let escaped_name = utf8_percent_encode(description.username(), &ESCAPED);
    resource::created(format!("/api/users/{escaped_name}"), &description)
}

/// List users
///
/// By name. For admins.
#[utoipa::path(
    get,
    path = "/api/users",
    tag = "Users",
    operation_id = "listUsers",
    params(UserListQuery),
    responses((status = 200, description = "The users", body = UserList), UserErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn list(
    State(upstream): State<Upstream>,
    _: User,
    query: Result<Query<UserListQuery>, QueryRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let Query(query) =
        query.map_err(|_| Error::new(Reason::InvalidArgument, "The query takes limit and after"))?;
    let message =
        ListUsersRequest { page_size: page_size(query.limit)?, page_token: query.after.unwrap_or_default() };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    let page =
        upstream.user_client().list_users(call).await.map_err(|status| list_failure(&status))?.into_inner();
    let users = page.users.into_iter().map(UserDescription::from).collect();
    Ok(json(StatusCode::OK, &UserList { users, next: next(page.next_page_token) }))
}

/// Describe the caller
#[utoipa::path(
    get,
    path = "/api/user",
    tag = "Users",
    operation_id = "describeUser",
    responses((status = 200, description = "The user", body = UserDescription), UserErrors),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn describe(
    State(upstream): State<Upstream>,
    _: User,
    head: Parts,
) -> Result<Response, Problem> {
    respond_with_user(&upstream, &head, String::new()).await
}

/// Describe a user
///
/// For admins; others can describe themselves.
#[utoipa::path(
    get,
    path = "/api/users/{name}",
    tag = "Users",
    operation_id = "retrieveUser",
    params(("name" = String, Path, description = "The user's name", example = "maria")),
    responses((status = 200, description = "The user", body = UserDescription), UserErrors, NoSuchUser),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn retrieve(
    State(upstream): State<Upstream>,
    _: User,
    name: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    respond_with_user(&upstream, &head, name_in_path(name)?).await
}

/// The description of a user; an empty name is the caller.
async fn respond_with_user(upstream: &Upstream, head: &Parts, username: String) -> Result<Response, Problem> {
    let call = on_behalf_of(&head.headers, &head.extensions, GetUserRequest { username });
    let user = upstream.user_client().get_user(call).await?.into_inner().user;
    Ok(json(StatusCode::OK, &described::<_, UserDescription>(user)?))
}

/// Change a user
///
/// Changes one property: a request with several is rejected, because the changes of several would
/// not be atomic. For admins; other users can set their own password, with the current one.
#[utoipa::path(
    patch,
    path = "/api/users/{name}",
    tag = "Users",
    operation_id = "updateUser",
    params(("name" = String, Path, description = "The user's name", example = "maria")),
    request_body = UserPatch,
    responses(
        (status = 200, description = "The user as changed", body = UserDescription),
        UserErrors, BodyErrors, NoSuchUser, LastAdmin,
    ),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn update(
    State(upstream): State<Upstream>,
    user: User,
    name: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let (head, change): (Parts, UserPatch) = read_json(&upstream, &user, request).await?;
    let username = name_in_path(name)?;
    let call = on_behalf_of(&head.headers, &head.extensions, ());
    let mut users = upstream.user_client();
    let changed = match change {
        UserPatch::Role(RoleChange { role }) => {
            let role = v1::Role::from(role).into();
            users.set_role(call.map(|()| SetRoleRequest { username, role })).await?.into_inner().user
        }
        UserPatch::Disabled(DisabledChange { disabled }) => {
            let call = call.map(|()| SetDisabledRequest { username, disabled });
            users.set_disabled(call).await?.into_inner().user
        }
        UserPatch::Quota(QuotaChange { quota }) => {
            let quota = Some(Quota::message_or_none(quota)?);
            users.set_quota(call.map(|()| SetQuotaRequest { username, quota })).await?.into_inner().user
        }
        UserPatch::Password(PasswordChange { password, current_password, delete_keys }) => {
            let current_password = current_password.unwrap_or_default();
            let message = SetPasswordRequest { username, password, current_password, delete_keys };
            users.set_password(call.map(|()| message)).await?.into_inner().user
        }
    };
    Ok(json(StatusCode::OK, &described::<_, UserDescription>(changed)?))
}

/// Remove a user
///
/// Revokes the user's tokens and deletes the API keys. For admins.
#[utoipa::path(
    delete,
    path = "/api/users/{name}",
    tag = "Users",
    operation_id = "removeUser",
    params(("name" = String, Path, description = "The user's name", example = "maria")),
    responses((status = 204, description = "The user is removed"), UserErrors, NoSuchUser, LastAdmin),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn remove(
    State(upstream): State<Upstream>,
    _: User,
    name: Result<Path<String>, PathRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let message = RemoveUserRequest { username: name_in_path(name)? };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    upstream.user_client().remove_user(call).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Revoke all tokens of a user
///
/// API keys are not tokens: they are deleted only with `delete_keys`. Users can revoke their own
/// tokens, admins those of all users.
#[utoipa::path(
    delete,
    path = "/api/users/{name}/tokens",
    tag = "Users",
    operation_id = "revokeUserTokens",
    params(("name" = String, Path, description = "The user's name", example = "maria"), RevokeTokensQuery),
    responses((status = 204, description = "The tokens are revoked"), UserErrors, NoSuchUser),
    security(("access_token" = []), ("access_token_cookie" = [])),
)]
pub(crate) async fn revoke_tokens(
    State(upstream): State<Upstream>,
    _: User,
    name: Result<Path<String>, PathRejection>,
    query: Result<Query<RevokeTokensQuery>, QueryRejection>,
    head: Parts,
) -> Result<Response, Problem> {
    let Query(query) = query
        .map_err(|_| Error::new(Reason::InvalidArgument, "The query takes delete_keys (true or false)"))?;
    let message = RevokeUserTokensRequest { username: name_in_path(name)?, delete_keys: query.delete_keys };
    let call = on_behalf_of(&head.headers, &head.extensions, message);
    upstream.auth_client().revoke_user_tokens(call).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// The name in the path. No user has an empty name, which would be the caller in some of the calls,
/// nor one that is not UTF-8.
fn name_in_path(name: Result<Path<String>, PathRejection>) -> Result<String, Error> {
    match name {
        Ok(Path(name)) if !name.is_empty() => Ok(name),
        _ => Err(Error::new(Reason::NoSuchUser, "there is no such user")),
    }
}
