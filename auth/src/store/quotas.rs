//! Quotas in the database, and how much of them is used.

use std::collections::{BTreeSet, HashMap};

use muse_proto::v1::QuotaState;
use sea_orm::{
    ActiveModelTrait, ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect,
    sea_query::{Expr, OnConflict},
};

use super::{
    Store,
    entities::{quota, revocation_log, usage},
    revocations,
};
use crate::usage::{DAY, Quota, QuotaPeriod, UsageReport};

/// Quotas in a message to verifiers.
const PAGE_SIZE: u64 = 5_000;
/// Quotas that a statement stores. SQLite has at most 32,766 parameters.
const ROWS_PER_STATEMENT: usize = 1_000;

/// Quotas in the order of their changes.
#[derive(Debug)]
pub(crate) struct QuotaPage {
    pub(crate) quotas: Vec<QuotaState>,
    /// The cursor after the last of them.
    pub(crate) cursor: i64,
    /// Whether there may be more.
    pub(crate) full: bool,
}

impl quota::Model {
    fn quota(&self) -> Quota {
        Quota {
            tokens: u64::try_from(self.tokens).unwrap_or_default(),
            period: QuotaPeriod::from_name(&self.period),
        }
    }
}

impl Store {
    /// The quotas of these users, by name.
    pub(crate) async fn user_quotas(&self, names: Vec<String>) -> Result<HashMap<String, Quota>, DbErr> {
        let of_users =
            Condition::all().add(quota::Column::KeyId.eq(0)).add(quota::Column::Username.is_in(names));
        let rows = self.quotas(of_users).await?;
        Ok(rows.into_iter().map(|row| (row.username.clone(), row.quota())).collect())
    }

    /// The quotas of these API keys, by id.
    pub(crate) async fn key_quotas(&self, ids: Vec<i64>) -> Result<HashMap<i64, Quota>, DbErr> {
        let rows = self.quotas(Condition::all().add(quota::Column::KeyId.is_in(ids))).await?;
        Ok(rows.into_iter().map(|row| (row.key_id, row.quota())).collect())
    }

    async fn quotas(&self, which: Condition) -> Result<Vec<quota::Model>, DbErr> {
        quota::Entity::find().filter(quota::Column::Tokens.gt(0)).filter(which).all(&self.db).await
    }

    /// The first quotas that were changed or used after `cursor`.
    pub(crate) async fn quotas_after(&self, cursor: i64) -> Result<QuotaPage, DbErr> {
        let rows = quota::Entity::find()
            .filter(quota::Column::Version.gt(cursor))
            .order_by_asc(quota::Column::Version)
            .limit(PAGE_SIZE)
            .all(&self.db)
            .await?;
        let full = rows.len() as u64 == PAGE_SIZE;
        let cursor = rows.last().map_or(cursor, |last| last.version);
        Ok(QuotaPage { quotas: rows.into_iter().map(message).collect(), cursor, full })
    }

    /// Deletes what is left of quotas that were removed more than a day ago, and returns how many
    /// there were.
    pub(crate) async fn prune_quotas(&self, now: i64) -> Result<u64, DbErr> {
        let change = self.begin().await?;
        let deleted = quota::Entity::delete_many()
            .filter(quota::Column::Tokens.eq(0))
            .filter(quota::Column::PeriodStart.lt(now - DAY))
            .exec(&change)
            .await?;
        change.commit().await?;
        Ok(deleted.rows_affected)
    }
}

/// The quota of a user, or of an API key if `key_id` is not 0.
pub(super) async fn of(
    change: &DatabaseTransaction,
    username: &str,
    key_id: i64,
) -> Result<Option<Quota>, DbErr> {
    let found = quota::Entity::find_by_id((username.to_owned(), key_id)).one(change).await?;
    Ok(found.map(|row| row.quota()).filter(|quota| quota.is_limit()))
}

/// Sets the quota of a user, or of an API key if `key_id` is not 0, as part of a change. Earlier usage
/// within the period counts.
pub(super) async fn set(
    change: &DatabaseTransaction,
    username: &str,
    key_id: i64,
    quota: Quota,
    now: i64,
) -> Result<(), DbErr> {
    if !quota.is_limit() {
        let which =
            Condition::all().add(quota::Column::Username.eq(username)).add(quota::Column::KeyId.eq(key_id));
        return remove(change, which, now).await;
    }
    let period_start = quota.period.start(now);
    let row = quota::Model {
        username: username.to_owned(),
        key_id,
        tokens: i64::try_from(quota.tokens).unwrap_or(i64::MAX),
        period: quota.period.as_str().to_owned(),
        period_start,
        used: tokens_since(change, username, key_id, period_start).await?,
        version: 0,
    };
    store(change, vec![row]).await
}

/// Removes the quotas of API keys as part of a change.
pub(super) async fn remove_of_keys(
    change: &DatabaseTransaction,
    key_ids: &[i64],
    now: i64,
) -> Result<(), DbErr> {
    remove(change, Condition::all().add(quota::Column::KeyId.is_in(key_ids.iter().copied())), now).await
}

/// Removes quotas: verifiers receive them without tokens.
async fn remove(change: &DatabaseTransaction, which: Condition, now: i64) -> Result<(), DbErr> {
    let rows = quota::Entity::find().filter(quota::Column::Tokens.gt(0)).filter(which).all(change).await?;
    let removed = |row| quota::Model { tokens: 0, period_start: now, used: 0, ..row };
    store(change, rows.into_iter().map(removed).collect()).await
}

/// Counts the tokens of a report for the quotas of its users and keys, and returns whether there are
/// any. Quotas that nobody uses are not updated when a period begins: verifiers know its end.
pub(super) async fn use_tokens(
    change: &DatabaseTransaction,
    report: &UsageReport,
    now: i64,
) -> Result<bool, DbErr> {
    let mut subjects = BTreeSet::<(&str, i64)>::new();
    for entry in report.entries.iter().filter(|entry| entry.counts.tokens > 0) {
        let (username, key_id) = &entry.subject;
        subjects.extend([(username.as_str(), 0), (username.as_str(), *key_id)]);
    }
    let names: BTreeSet<&str> = subjects.iter().map(|(name, _)| *name).collect();
    let key_ids: BTreeSet<i64> = subjects.iter().map(|(_, key_id)| *key_id).collect();
    let rows = quota::Entity::find()
        .filter(quota::Column::Tokens.gt(0))
        .filter(quota::Column::Username.is_in(names))
        .filter(quota::Column::KeyId.is_in(key_ids))
        .all(change)
        .await?;
    let mut used_quotas = Vec::new();
    for row in rows {
        if !subjects.contains(&(row.username.as_str(), row.key_id)) {
            continue;
        }
        let period_start = row.quota().period.start(now);
        let used = if row.period_start == period_start {
            row.used + report.tokens_since(period_start, &(row.username.clone(), row.key_id))
        } else {
            tokens_since(change, &row.username, row.key_id, period_start).await?
        };
        used_quotas.push(quota::Model { period_start, used, ..row });
    }
    let any = !used_quotas.is_empty();
    store(change, used_quotas).await?;
    Ok(any)
}

/// The tokens of a user, or with an API key if `key_id` is not 0, on the days from `start` on.
async fn tokens_since(
    change: &DatabaseTransaction,
    username: &str,
    key_id: i64,
    start: i64,
) -> Result<i64, DbErr> {
    let mut rows = usage::Entity::find()
        .select_only()
        .column_as(Expr::cust("CAST(COALESCE(SUM(tokens), 0) AS BIGINT)"), "tokens")
        .filter(usage::Column::Span.eq(DAY))
        .filter(usage::Column::Start.gte(start))
        .filter(usage::Column::Username.eq(username));
    if key_id != 0 {
        rows = rows.filter(usage::Column::KeyId.eq(key_id));
    }
    Ok(rows.into_tuple::<i64>().one(change).await?.unwrap_or_default())
}

/// Stores quotas, as changes that verifiers receive. The number of statements hardly depends on that
/// of the quotas, because other changes wait.
async fn store(change: &DatabaseTransaction, mut rows: Vec<quota::Model>) -> Result<(), DbErr> {
    if rows.is_empty() {
        return Ok(());
    }
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    revocation_log::Entity::update_many()
        .col_expr(revocation_log::Column::QuotaVersion, Expr::cust(format!("quota_version + {count}")))
        .exec(change)
        .await?;
    let first = revocations::log(change).await?.quota_version - count + 1;
    for (row, version) in rows.iter_mut().zip(first..) {
        row.version = version;
    }
    let key = [quota::Column::Username, quota::Column::KeyId];
    let replace = OnConflict::columns(key)
        .update_columns([
            quota::Column::Tokens,
            quota::Column::Period,
            quota::Column::PeriodStart,
            quota::Column::Used,
            quota::Column::Version,
        ])
        .to_owned();
    for rows in rows.chunks(ROWS_PER_STATEMENT) {
        let rows = rows.iter().map(|row| quota::ActiveModel::from(row.clone()).reset_all());
        quota::Entity::insert_many(rows).on_conflict(replace.clone()).exec_without_returning(change).await?;
    }
    Ok(())
}

fn message(row: quota::Model) -> QuotaState {
    let Quota { tokens, period } = row.quota();
    QuotaState {
        username: row.username,
        key_id: (row.key_id != 0).then_some(row.key_id.cast_unsigned()),
        limit: tokens,
        used: u64::try_from(row.used).unwrap_or_default(),
        resets_at: period.end(row.period_start),
    }
}
