//! The requests and responses of these routes.

use std::collections::BTreeMap;

use muse_proto::v1;
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{self, RefOr},
};

use crate::api::{
    json_request::{JsonBody, WholeNumber, present},
    problem::{problems, route_problems},
    quota::Quota,
};

/// A key to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewKey {
    /// For people: 1 to 100 bytes without control characters.
    #[schema(example = "weaviate", min_length = 1, max_length = 100)]
    pub(super) name: String,
    /// Seconds until the key expires; 0 or null for never.
    #[serde(default)]
    #[schema(value_type = Option<i64>, example = 7_776_000, minimum = 0, maximum = 316_224_000)]
    pub(super) expires_in: Option<WholeNumber>,
    /// Whether its calls are a bulk job, which gets an eighth of its owner's share while other requests
    /// of the owner wait.
    #[serde(default)]
    pub(super) bulk: bool,
    /// The owner; of another user than the caller: for admins only.
    #[serde(default)]
    pub(super) user: Option<String>,
    /// A limit on its tokens, which count for the quota of its owner, too.
    #[serde(default)]
    pub(super) quota: Option<Quota>,
}

impl JsonBody for NewKey {
    const FIELDS: &'static [&'static str] = &["name", "expires_in", "bulk", "user", "quota"];
}

/// Changes of a key: of the fields that are present.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChange {
    /// For people: 1 to 100 bytes without control characters.
    #[schema(example = "weaviate", min_length = 1, max_length = 100)]
    pub(super) name: Option<String>,
    /// Whether the key is rejected until it is enabled again.
    pub(super) disabled: Option<bool>,
    /// Seconds from now until the key expires; 0 or null for never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i64>, example = 7_776_000, minimum = 0, maximum = 316_224_000)]
    pub(super) expires_in: Option<Option<WholeNumber>>,
    /// Whether its calls are a bulk job, which gets an eighth of its owner's share while other requests
    /// of the owner wait.
    pub(super) bulk: Option<bool>,
    /// A limit on its tokens; null for none.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Quota>)]
    pub(super) quota: Option<Option<Quota>>,
}

impl JsonBody for KeyChange {
    const FIELDS: &'static [&'static str] = &["name", "disabled", "expires_in", "bulk", "quota"];
}

/// Which keys are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeyListQuery {
    /// The owner; without it the caller. Of another user: for admins only.
    #[param(nullable = false)]
    pub(super) user: Option<String>,
    /// The keys of all users. For admins only.
    #[serde(default)]
    #[param(nullable = false, required = false)]
    pub(super) all: bool,
    /// At most this many.
    #[param(nullable = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: Option<u16>,
    /// `next` of the page before.
    #[param(nullable = false)]
    pub(super) after: Option<String>,
}

/// An API key, without its secret. Times are in seconds since 1970.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub(crate) struct KeyDescription {
    /// The permanent id, which is part of the key.
    #[schema(example = "q5dmhtx2yo7a")]
    id: String,
    #[schema(example = "weaviate")]
    name: String,
    /// The user whom its calls count for.
    #[schema(example = "maria")]
    owner: String,
    #[schema(example = 1_790_000_000)]
    created_at: i64,
    /// The user who created it; null for the operator of the service.
    #[schema(required = true)]
    created_by: Option<String>,
    /// Null for never.
    #[schema(required = true)]
    expires_at: Option<i64>,
    /// Whether it is rejected until it is enabled again.
    disabled: bool,
    /// Whether its calls are a bulk job, which gets an eighth of its owner's share while other requests
    /// of the owner wait.
    bulk: bool,
    /// The start of the day (UTC) on which it was last used.
    #[schema(required = true)]
    last_used_day: Option<i64>,
    /// The network from which it was used on that day.
    #[schema(required = true, example = "192.0.2.0/24")]
    last_used_from: Option<String>,
    /// The limit on its tokens; null for none.
    #[schema(required = true)]
    quota: Option<Quota>,
}

impl KeyDescription {
    pub(super) fn id(&self) -> &str {
        &self.id
    }
}

impl From<v1::ApiKey> for KeyDescription {
    fn from(key: v1::ApiKey) -> Self {
        let set = |time: i64| (time != 0).then_some(time);
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        Self {
            id: key.id,
            name: key.name,
            owner: key.owner,
            created_at: key.created_at,
            created_by: text(key.created_by),
            expires_at: set(key.expires_at),
            disabled: key.disabled,
            bulk: key.bulk,
            last_used_day: set(key.last_used_day),
            last_used_from: text(key.last_used_from),
            quota: key.quota.map(Quota::from),
        }
    }
}

/// A new key, with its secret.
#[derive(Serialize, ToSchema)]
pub(crate) struct CreatedKey {
    /// The key itself. It cannot be read again.
    #[schema(example = "muse_q5dmhtx2yo7a_…")]
    pub(super) key: String,
    #[serde(flatten)]
    pub(super) description: KeyDescription,
}

/// A page of keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyList {
    pub(super) keys: Vec<KeyDescription>,
    /// For `after`, to get the next page; null if this is the last.
    #[schema(required = true)]
    pub(super) next: Option<String>,
}

/// The errors of all of these routes.
pub(crate) struct KeyErrors;

impl IntoResponses for KeyErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        route_problems(&[
            (400, "The request is malformed, or an argument is missing or wrong"),
            (401, "The credential is missing, malformed, of another kind, expired or revoked"),
            (
                403,
                "The caller may not do this: it requires an access token, for other users that of an admin",
            ),
            (429, "Too many requests are open"),
        ])
    }
}

/// The error of a key or a user that does not exist.
pub(crate) struct NotFound;

impl IntoResponses for NotFound {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[(404, "There is no such key or user, or the key belongs to another user")])
    }
}

/// The error of one key too many.
pub(crate) struct TooManyKeys;

impl IntoResponses for TooManyKeys {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        problems(&[(409, "The user has 1,000 keys, or 10,000 with those deleted within the last 30 days")])
    }
}
