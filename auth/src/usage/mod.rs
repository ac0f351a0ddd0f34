//! Usage accounting: who used the service how much, and quotas on it.
//!
//! Embedders count and report ([`record`](Usage::record)), the store sums up by hours and days, and
//! quotas are compared with these sums.

mod quota;
mod report;

use clap::ValueEnum;
use muse_proto::{Error, v1};
use muse_verifier::api_keys::KeyId;

use crate::{
    AuthError, clock,
    error::{database_failed, invalid},
    pages::{self, all_pages},
    store::{Store, UsageFilter},
};

pub use quota::{Quota, QuotaPeriod};
pub(crate) use report::{UsageEntry, UsageReport};

/// Seconds of a day.
pub(crate) const DAY: i64 = 86_400;
/// Seconds of an hour.
pub(crate) const HOUR: i64 = 3_600;
/// How long hours are stored.
const HOUR_RETENTION_SECONDS: i64 = 31 * DAY;
/// Days of a list whose first day is not given.
const DEFAULT_DAYS: i64 = 30;
/// Rows that are read at a time.
const PAGE_SIZE: u64 = 1_000;

/// How usage is grouped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum UsageGrouping {
    /// By day, user and API key.
    #[default]
    #[value(skip)]
    All,
    /// By day.
    Day,
    /// By user.
    User,
    /// By user and API key.
    Key,
    /// By hour.
    Hour,
}

impl UsageGrouping {
    /// Whether rows have a start of a day or an hour.
    pub(crate) fn by_time(self) -> bool {
        matches!(self, Self::All | Self::Day | Self::Hour)
    }

    /// Whether rows have a user.
    pub(crate) fn by_user(self) -> bool {
        matches!(self, Self::All | Self::User | Self::Key)
    }

    /// Whether rows have an API key.
    pub(crate) fn by_key(self) -> bool {
        matches!(self, Self::All | Self::Key)
    }
}

/// The usage of a group. Fields that the grouping sums over are `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRow {
    /// The start of the day or hour, in seconds since 1970.
    pub start: Option<i64>,
    /// The user.
    pub username: Option<String>,
    /// The API key; `None` also for calls with tokens.
    pub key_id: Option<KeyId>,
    /// Answered calls of Embed and Tokenize, and streams.
    pub requests: u64,
    /// Sentences whose vectors were computed.
    pub sentences: u64,
    /// Their tokens, without `<s>` and `</s>`.
    pub tokens: u64,
    /// Rejected calls.
    pub refused: u64,
}

/// What of the usage is listed.
#[derive(Debug, Clone, Copy, Default)]
pub struct UsageQuery<'a> {
    /// A time of the first day, in seconds since 1970; `None` for 29 days before the last one.
    pub from: Option<i64>,
    /// A time of the last day, which is included; `None` for today.
    pub to: Option<i64>,
    /// How it is grouped.
    pub grouping: UsageGrouping,
    /// Only of this user.
    pub username: Option<&'a str>,
    /// Only of this API key.
    pub key_id: Option<KeyId>,
}

/// Records and lists usage, also while the service runs.
#[derive(Debug, Clone)]
pub struct Usage {
    store: Store,
}

impl Usage {
    pub(crate) fn new(store: Store) -> Self {
        Self { store }
    }

    /// Stores a report of an embedder, unless it was stored before.
    ///
    /// # Errors
    ///
    /// [`Reason::InvalidArgument`](muse_proto::Reason) for a malformed report, or if the database
    /// fails.
    pub(crate) async fn record(&self, report: v1::ReportUsageRequest) -> Result<(), Error> {
        let now = clock::now();
        let report = report::check(report, now)?;
        self.store.record_usage(&report, now).await.map_err(database_failed)
    }

    /// The usage of a query, in the order of time, user and API key.
    ///
    /// # Errors
    ///
    /// If the period is invalid, or there is neither such a user nor usage of one.
    pub async fn list(&self, query: UsageQuery<'_>) -> Result<Vec<UsageRow>, AuthError> {
        all_pages(async |page_token| self.page(query, page_token, PAGE_SIZE).await).await
    }

    /// At most `limit` rows after those of the page with this token, and the token of the next
    /// page.
    pub(crate) async fn page(
        &self,
        query: UsageQuery<'_>,
        page_token: &str,
        limit: u64,
    ) -> Result<(Vec<UsageRow>, Option<String>), AuthError> {
        let after = position(page_token)?;
        let (from, to) = period(query.from, query.to)?;
        let username = match query.username {
            Some(typed) => Some(self.known_user(typed).await?),
            None => None,
        };
        let filter = UsageFilter {
            span: if query.grouping == UsageGrouping::Hour { HOUR } else { DAY },
            starts: from..to + DAY,
            grouping: query.grouping,
            username: username.as_deref(),
            key_id: query.key_id,
            after,
            // One more shows whether this is the last page.
            limit: limit + 1,
        };
        let mut rows = self.store.usage(&filter).await?;
        let next = pages::truncate(&mut rows, limit).map(page_token_after);
        Ok((rows, next))
    }

    /// The name of a user, or of a removed one who has used the service.
    async fn known_user(&self, typed: &str) -> Result<String, AuthError> {
        if let Some(user) = self.store.find_user(typed).await? {
            return Ok(user.username);
        }
        if self.store.has_usage(typed).await? {
            return Ok(typed.to_owned());
        }
        Err(AuthError::NoSuchUser(typed.to_owned()))
    }

    /// Deletes the usage of days before the last `retention_days`, of hours before the last 31
    /// days, and what is left of removed quotas. Returns the number of rows.
    pub(crate) async fn prune(&self, retention_days: u32, now: i64) -> Result<u64, AuthError> {
        let today = start_of(now, DAY);
        Ok(self.store.prune_usage(DAY, today - (i64::from(retention_days) - 1) * DAY).await?
            + self.store.prune_usage(HOUR, now - HOUR_RETENTION_SECONDS).await?
            + self.store.prune_usage_reports(now - HOUR_RETENTION_SECONDS).await?
            + self.store.prune_quotas(now).await?)
    }
}

/// The start of the span (an hour or a day) of a time.
pub(crate) fn start_of(time: i64, span: i64) -> i64 {
    time.div_euclid(span).saturating_mul(span)
}

/// The starts of the first and the last day.
fn period(from: Option<i64>, to: Option<i64>) -> Result<(i64, i64), AuthError> {
    let time_range = 0..=i64::from(u32::MAX) * 2;
    for (field, time) in [("from", from), ("to", to)] {
        if time.is_some_and(|time| !time_range.contains(&time)) {
            return Err(AuthError::Rejected(invalid(
                field,
                format!("{field}: it is not a day between 1970 and 2242"),
            )));
        }
    }
    let to = start_of(to.unwrap_or_else(clock::now), DAY);
    let from = from.map_or(to - (DEFAULT_DAYS - 1) * DAY, |from| start_of(from, DAY));
    if from > to {
        return Err(AuthError::Rejected(invalid("from", "from: the first day is after the last one")));
    }
    Ok((from, to))
}

/// The position after the last row of a page: start, user and API key, of which those that rows do
/// not have are empty.
pub(crate) type UsagePosition = (i64, String, i64);

fn position(page_token: &str) -> Result<UsagePosition, AuthError> {
    if page_token.is_empty() {
        return Ok((i64::MIN, String::new(), i64::MIN));
    }
    let parse = || {
        let (start, rest) = page_token.split_once('.')?;
        let (key_id, username) = rest.split_once('.')?;
        Some((start.parse().ok()?, username.to_owned(), key_id.parse().ok()?))
    };
    parse().filter(|(_, username, _): &UsagePosition| !username.contains('\0')).ok_or_else(|| {
        AuthError::Rejected(invalid("page_token", "page_token: it is not one of a page before"))
    })
}

fn page_token_after(row: &UsageRow) -> String {
    let key_id = row.key_id.map_or(0, KeyId::number);
    format!("{}.{key_id}.{}", row.start.unwrap_or_default(), row.username.as_deref().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn period_has_thirty_days_by_default() {
        let days = |from, to| period(from, to).map(|(from, to)| (from / DAY, to / DAY)).ok();
        assert_eq!(days(None, Some(100 * DAY + 5)), Some((71, 100)));
        assert_eq!(days(Some(3 * DAY + 1), Some(3 * DAY)), Some((3, 3)));
        assert_eq!(days(Some(4 * DAY), Some(3 * DAY)), None);
        for invalid in [-1, i64::MIN, i64::MAX] {
            assert_eq!((days(Some(invalid), None), days(None, Some(invalid))), (None, None));
        }
    }

    #[test]
    fn page_token_is_a_position() {
        let row = UsageRow {
            start: Some(86_400),
            username: Some("a.b c".to_owned()),
            key_id: Some(KeyId::new(7)),
            requests: 0,
            sentences: 0,
            tokens: 0,
            refused: 0,
        };
        assert_eq!(position(&page_token_after(&row)).unwrap(), (86_400, "a.b c".to_owned(), 7));
        for invalid in ["x", "1", "1.2", "1.x.a", "1.1.a\0", "."] {
            assert!(position(invalid).is_err(), "{invalid}");
        }
    }
}
