//! The query and the responses of this route.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat};
use muse_proto::{Error, Reason, v1};
use serde::{Deserialize, Serialize};
use utoipa::{
    IntoParams, IntoResponses, ToSchema,
    openapi::{self, RefOr},
};

use crate::api::problem::route_problems;

/// Which usage is listed.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct UsageListQuery {
    /// The first day (UTC). Without it 29 days before the last one.
    #[param(nullable = false, format = Date, example = "2026-11-01")]
    pub(super) from: Option<String>,
    /// The last day (UTC), which is included. Without it today.
    #[param(nullable = false, format = Date, example = "2026-11-30")]
    pub(super) to: Option<String>,
    /// How usage is grouped. Without it by day, user and key. Hours are stored for 31 days.
    #[param(nullable = false, inline)]
    pub(super) by: Option<UsageGrouping>,
    /// Only the usage of this user. Of another one than the caller: for admins only.
    #[param(nullable = false)]
    pub(super) user: Option<String>,
    /// Only the usage of the API key with this id.
    #[param(nullable = false)]
    pub(super) key_id: Option<String>,
    /// At most this many groups.
    #[param(nullable = false, minimum = 1, maximum = 1000, default = 100)]
    pub(super) limit: Option<u16>,
    /// `next` of the page before.
    #[param(nullable = false)]
    pub(super) after: Option<String>,
}

/// How usage is grouped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum UsageGrouping {
    Day,
    User,
    Key,
    Hour,
}

impl UsageGrouping {
    pub(super) fn message(self) -> v1::UsageGrouping {
        match self {
            Self::Day => v1::UsageGrouping::Day,
            Self::User => v1::UsageGrouping::User,
            Self::Key => v1::UsageGrouping::Key,
            Self::Hour => v1::UsageGrouping::Hour,
        }
    }
}

/// The first second of a day in the query, as the auth service takes it, for which 0 is no day.
pub(super) fn start_of_day(field: &str, text: &str) -> Result<i64, Error> {
    let day: NaiveDate = text.parse().map_err(|_| {
        Error::new(Reason::InvalidArgument, format!("{field}: it is a day such as 2026-11-29"))
            .with_field(field)
    })?;
    Ok(match day.and_time(NaiveTime::MIN).and_utc().timestamp() {
        0 => 1,
        seconds => seconds,
    })
}

/// The usage of a group. Fields that the grouping sums over are absent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UsageRow)]
pub(crate) struct UsageRow {
    /// The day (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = Date, example = "2026-11-29")]
    day: Option<String>,
    /// The start of the hour (UTC).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, format = DateTime, example = "2026-11-29T13:00:00Z")]
    hour: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false, example = "maria")]
    user: Option<String>,
    /// The id of the API key; null for calls with tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "q5dmhtx2yo7a")]
    key_id: Option<Option<String>>,
    /// Answered requests to embed or tokenize; a stream of gRPC is one.
    requests: u64,
    /// Sentences whose vectors were computed.
    sentences: u64,
    /// Their tokens, as `usage` of `/v1/embeddings` counts them.
    tokens: u64,
    /// Requests that were rejected because of a quota, of load, or of a limit of memory.
    refused: u64,
}

impl UsageRow {
    pub(super) fn new(row: v1::UsageRow, by: Option<UsageGrouping>) -> Self {
        let time = DateTime::from_timestamp(row.start, 0).unwrap_or_default();
        let day = || time.date_naive().to_string();
        let hour = || time.to_rfc3339_opts(SecondsFormat::Secs, true);
        let has = |groupings: &[UsageGrouping]| by.is_none_or(|by| groupings.contains(&by));
        let (has_day, has_hour) = (has(&[UsageGrouping::Day]), by == Some(UsageGrouping::Hour));
        let (has_user, has_key) =
            (has(&[UsageGrouping::User, UsageGrouping::Key]), has(&[UsageGrouping::Key]));
        Self {
            day: has_day.then(day),
            hour: has_hour.then(hour),
            user: has_user.then_some(row.username),
            key_id: has_key.then_some(Some(row.key_id).filter(|id| !id.is_empty())),
            requests: row.requests,
            sentences: row.sentences,
            tokens: row.tokens,
            refused: row.refused,
        }
    }
}

/// A page of usage.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct UsageList {
    /// In ascending order of day or hour, user and key.
    pub(super) usage: Vec<UsageRow>,
    /// For `after`, to get the next page; null if this is the last.
    #[schema(required = true)]
    pub(super) next: Option<String>,
}

/// The errors of this route.
pub(crate) struct UsageErrors;

impl IntoResponses for UsageErrors {
    fn responses() -> BTreeMap<String, RefOr<openapi::Response>> {
        route_problems(&[
            (400, "A parameter is wrong"),
            (401, "The credential is missing, malformed, of another kind, expired or revoked"),
            (403, "The usage of other users is for admins, that of other keys requires an access token"),
            (404, "There is neither such a user nor usage of one"),
            (429, "Too many requests are open"),
        ])
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{json, to_value};

    use super::*;

    #[test]
    fn group_has_the_fields_of_its_grouping() {
        let row = |key_id: &str| v1::UsageRow {
            start: 1_795_957_200,
            username: "ann".to_owned(),
            key_id: key_id.to_owned(),
            tokens: 5,
            ..v1::UsageRow::default()
        };
        let group = |by| {
            let mut group = to_value(UsageRow::new(row(""), by)).unwrap();
            let fields = group.as_object_mut().unwrap();
            for number in ["requests", "sentences", "tokens", "refused"] {
                assert!(fields.remove(number).unwrap().is_u64());
            }
            group
        };
        assert_eq!(group(None), json!({ "day": "2026-11-29", "user": "ann", "key_id": null }));
        assert_eq!(group(Some(UsageGrouping::Day)), json!({ "day": "2026-11-29" }));
        assert_eq!(group(Some(UsageGrouping::Hour)), json!({ "hour": "2026-11-29T13:00:00Z" }));
        assert_eq!(group(Some(UsageGrouping::User)), json!({ "user": "ann" }));
        assert_eq!(group(Some(UsageGrouping::Key)), json!({ "user": "ann", "key_id": null }));
        assert_eq!(to_value(UsageRow::new(row("a"), None)).unwrap()["key_id"], "a");
    }

    #[test]
    fn day_is_a_date() {
        assert_eq!(start_of_day("from", "2026-11-29"), Ok(1_795_910_400));
        assert_eq!(start_of_day("from", "1970-01-01"), Ok(1));
        for invalid in ["", "29.11.2026", "2026-02-30", "2026-11-29T00:00:00Z", "1795910400"] {
            assert_eq!(start_of_day("to", invalid).unwrap_err().field(), Some("to"), "{invalid}");
        }
    }
}
