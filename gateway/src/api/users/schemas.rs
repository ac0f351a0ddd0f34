//! The requests and responses of these routes. Types with a password have no debug output.

use std::collections::BTreeMap;

use muse_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{self, RefOr},
};

use crate::api::{
    json_request::{JsonBody, present},
    problem::{problems, route_problems},
    quota::Quota,
};

/// The permissions of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Role)]
pub(crate) enum UserRole {
    /// May embed and tokenize.
    #[default]
    User,
    /// May also manage users.
    Admin,
}

impl From<UserRole> for v1::Role {
    fn from(role: UserRole) -> Self {
        match role {
            UserRole::User => Self::User,
            UserRole::Admin => Self::Admin,
        }
    }
}

impl From<v1::Role> for UserRole {
    fn from(role: v1::Role) -> Self {
        match role {
            v1::Role::Unspecified | v1::Role::User => Self::User,
            v1::Role::Admin => Self::Admin,
        }
    }
}

/// A user to be added.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewUser {
    /// 1 to 64 bytes; docs/api/limits.md lists all rules.
    #[schema(example = "maria", min_length = 1, max_length = 64)]
    pub(super) username: String,
    /// 8 to 1,024 bytes.
    #[schema(example = "a long password", format = Password, min_length = 8, max_length = 1024)]
    pub(super) password: String,
    /// Without it `user`.
    #[serde(default)]
    pub(super) role: UserRole,
}

impl JsonBody for NewUser {
    const FIELDS: &'static [&'static str] = &["username", "password", "role"];
}

/// A change of a user: of one property.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum UserPatch {
    Role(RoleChange),
    Disabled(DisabledChange),
    Password(PasswordChange),
    Quota(QuotaChange),
}

impl JsonBody for UserPatch {
    const FIELDS: &'static [&'static str] = &[];
    const EXPECTED: &'static str = "the body has exactly one of role (user or admin), disabled (true or \
                                    false), quota (tokens and period: day or month; or null) and \
                                    password (a text; with it current_password and delete_keys are \
                                    permitted)";
}

/// Another role.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RoleChange {
    pub(super) role: UserRole,
}

/// Disables or enables the user.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DisabledChange {
    /// Whether the user cannot log in. Disabling revokes the tokens and deletes the API keys.
    pub(super) disabled: bool,
}

/// Another password. The tokens of the user are revoked.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PasswordChange {
    /// 8 to 1,024 bytes.
    #[schema(example = "another long password", format = Password, min_length = 8, max_length = 1024)]
    pub(super) password: String,
    /// The current password, which is required of users who are not admins.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = String, required = false, format = Password)]
    pub(super) current_password: Option<String>,
    /// Whether the API keys of the user are deleted, too.
    #[serde(default)]
    pub(super) delete_keys: bool,
}

/// Another quota, or none. For admins.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct QuotaChange {
    /// Null for none. Earlier usage within the period counts.
    #[serde(deserialize_with = "Option::deserialize")]
    #[schema(required = true)]
    pub(super) quota: Option<Quota>,
}

/// Which users are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct UserListQuery {
    /// At most this many.
    #[param(nullable = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: Option<u16>,
    /// `next` of the page before.
    #[param(nullable = false)]
    pub(super) after: Option<String>,
}

/// What is deleted with the tokens of a user.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct RevokeTokensQuery {
    /// Whether the API keys of the user are deleted, too.
    #[serde(default)]
    #[param(nullable = false, required = false)]
    pub(super) delete_keys: bool,
}

/// A user.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = User)]
pub(crate) struct UserDescription {
    /// The name, which is the claim `sub` of the user's tokens.
    #[schema(example = "maria")]
    username: String,
    role: UserRole,
    /// Whether the user is disabled and cannot log in.
    disabled: bool,
    /// In seconds since 1970.
    #[schema(example = 1_790_000_000)]
    created_at: i64,
    /// The limit on the user's tokens; null for none.
    #[schema(required = true)]
    quota: Option<Quota>,
}

impl UserDescription {
    pub(super) fn username(&self) -> &str {
        &self.username
    }
}

impl From<v1::User> for UserDescription {
    fn from(user: v1::User) -> Self {
        Self {
            role: user.role().into(),
            username: user.username,
            disabled: user.disabled,
            created_at: user.created_at,
            quota: user.quota.map(Quota::from),
        }
    }
}

/// A page of users.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UserList {
    pub(super) users: Vec<UserDescription>,
    /// For `after`, to get the next page; null if this is the last.
    #[schema(required = true)]
    pub(super) next: Option<String>,
}

/// The errors of all of these routes.
pub(crate) struct UserErrors;

impl IntoResponses for UserErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        route_problems(&[
            (400, "The request is malformed, or an argument is missing or wrong"),
            (
                401,
                "The credential is missing, malformed, of another kind, expired or revoked, or the current \
                 password is wrong",
            ),
            (403, "The caller may not do this: it requires the access token of an admin"),
            (429, "Too many requests are open, or too many current passwords were wrong"),
        ])
    }
}

/// The error of a user that does not exist.
pub(crate) struct NoSuchUser;

impl IntoResponses for NoSuchUser {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[(404, "There is no such user")])
    }
}

/// The error of a name that another user has.
pub(crate) struct NameInUse;

impl IntoResponses for NameInUse {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[(409, "There is a user of this name")])
    }
}

/// The error of a change that would leave no admin.
pub(crate) struct LastAdmin;

impl IntoResponses for LastAdmin {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[(409, "The user is the last enabled admin")])
    }
}
