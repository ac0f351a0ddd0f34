//! Usage in the database.

use std::ops::Range;

use muse_verifier::api_keys::KeyId;
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, Condition, DatabaseTransaction, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    TransactionTrait,
    sea_query::{Expr, ExprTrait, OnConflict},
};

use super::{
    Store,
    entities::{usage, usage_report},
    quotas,
    users::may_be_stored,
};
use crate::usage::{UsageEntry, UsageGrouping, UsagePosition, UsageReport, UsageRow};

/// Rows that a statement inserts. SQLite has at most 32,766 parameters.
const ROWS_PER_STATEMENT: usize = 500;
/// Rows that a statement deletes, since other changes wait.
const DELETED_PER_STATEMENT: u64 = 5_000;

/// Which usage is listed.
#[derive(Debug)]
pub(crate) struct UsageFilter<'a> {
    /// The seconds of an hour or of a day.
    pub(crate) span: i64,
    /// The starts of the hours or days.
    pub(crate) starts: Range<i64>,
    pub(crate) grouping: UsageGrouping,
    pub(crate) username: Option<&'a str>,
    pub(crate) key_id: Option<KeyId>,
    /// Rows after this position.
    pub(crate) after: UsagePosition,
    pub(crate) limit: u64,
}

impl Store {
    /// Stores a report, unless it or a later one of the same reporter was stored, and updates the
    /// quotas whose use it changes.
    pub(crate) async fn record_usage(&self, report: &UsageReport, now: i64) -> Result<(), DbErr> {
        let change = self.begin().await?;
        let last = usage_report::Entity::find_by_id(report.reporter.clone()).one(&change).await?;
        if last.is_some_and(|last| last.sequence >= report.sequence) {
            return change.rollback().await;
        }
        let row = usage_report::ActiveModel {
            reporter: Set(report.reporter.clone()),
            sequence: Set(report.sequence),
            reported_at: Set(now),
        };
        let replace = OnConflict::column(usage_report::Column::Reporter)
            .update_columns([usage_report::Column::Sequence, usage_report::Column::ReportedAt])
            .to_owned();
        usage_report::Entity::insert(row).on_conflict(replace).exec_without_returning(&change).await?;
        for entries in report.entries.chunks(ROWS_PER_STATEMENT) {
            add(&change, entries).await?;
        }
        if quotas::use_tokens(&change, report, now).await? {
            self.commit(change).await
        } else {
            // Verifiers need not know.
            change.commit().await
        }
    }

    /// Usage in the order of start, user and API key, as far as rows have them.
    pub(crate) async fn usage(&self, filter: &UsageFilter<'_>) -> Result<Vec<UsageRow>, DbErr> {
        let grouping = filter.grouping;
        let sum = |column: &str| Expr::cust(format!("CAST(SUM({column}) AS BIGINT)"));
        let mut rows = usage::Entity::find()
            .select_only()
            .filter(usage::Column::Span.eq(filter.span))
            .filter(usage::Column::Start.gte(filter.starts.start))
            .filter(usage::Column::Start.lt(filter.starts.end));
        if let Some(username) = filter.username {
            rows = rows.filter(usage::Column::Username.eq(username));
        }
        if let Some(key_id) = filter.key_id {
            rows = rows.filter(usage::Column::KeyId.eq(key_id.number().cast_signed()));
        }
        let (start, username, key_id) = &filter.after;
        let mut after = Condition::any();
        let mut equal = Condition::all();
        for (is_grouped, column, value) in [
            (grouping.by_time(), usage::Column::Start, Expr::value(*start)),
            (grouping.by_user(), usage::Column::Username, Expr::value(username.as_str())),
            (grouping.by_key(), usage::Column::KeyId, Expr::value(*key_id)),
        ] {
            if is_grouped {
                rows = rows.column(column).group_by(column).order_by_asc(column);
                let column = || Expr::col(column);
                after = after.add(equal.clone().add(column().gt(value.clone())));
                equal = equal.add(column().eq(value));
            } else {
                let constant = if matches!(column, usage::Column::Username) {
                    Expr::value("")
                } else {
                    Expr::value(0_i64)
                };
                rows = rows.column_as(constant, column);
            }
        }
        let found: Vec<_> = rows
            .filter(after)
            .column_as(sum("requests"), usage::Column::Requests)
            .column_as(sum("sentences"), usage::Column::Sentences)
            .column_as(sum("tokens"), usage::Column::Tokens)
            .column_as(sum("refused"), usage::Column::Refused)
            .limit(filter.limit)
            .into_tuple()
            .all(&self.db)
            .await?;
        let row = |row: (i64, String, i64, i64, i64, i64, i64)| {
            let (start, username, key_id, requests, sentences, tokens, refused) = row;
            let number = |count: i64| u64::try_from(count).unwrap_or_default();
            UsageRow {
                start: grouping.by_time().then_some(start),
                username: grouping.by_user().then_some(username),
                key_id: (key_id != 0).then(|| KeyId::new(key_id.cast_unsigned())),
                requests: number(requests),
                sentences: number(sentences),
                tokens: number(tokens),
                refused: number(refused),
            }
        };
        Ok(found.into_iter().map(row).collect())
    }

    /// Whether there is usage of a user.
    pub(crate) async fn has_usage(&self, username: &str) -> Result<bool, DbErr> {
        if !may_be_stored(username) {
            return Ok(false);
        }
        let found = usage::Entity::find().filter(usage::Column::Username.eq(username));
        Ok(found.limit(1).one(&self.db).await?.is_some())
    }

    /// Deletes the usage of hours or days that start before `before`, and returns the number of rows.
    pub(crate) async fn prune_usage(&self, span: i64, before: i64) -> Result<u64, DbErr> {
        let mut deleted = 0;
        loop {
            let change = self.db.begin().await?;
            let old = format!(
                "(start, username, key_id) IN (SELECT start, username, key_id FROM usage WHERE span = {span} \
                 AND start < {before} LIMIT {DELETED_PER_STATEMENT})"
            );
            let count = usage::Entity::delete_many()
                .filter(usage::Column::Span.eq(span))
                .filter(Expr::cust(old))
                .exec(&change)
                .await?
                .rows_affected;
            change.commit().await?;
            deleted += count;
            if count < DELETED_PER_STATEMENT {
                return Ok(deleted);
            }
        }
    }

    /// Forgets reporters whose last report is from before `before`.
    pub(crate) async fn prune_usage_reports(&self, before: i64) -> Result<u64, DbErr> {
        let old = usage_report::Entity::delete_many().filter(usage_report::Column::ReportedAt.lt(before));
        Ok(old.exec(&self.db).await?.rows_affected)
    }
}

/// Adds usage to that of the same hours and days.
async fn add(change: &DatabaseTransaction, entries: &[UsageEntry]) -> Result<(), DbErr> {
    let rows = entries.iter().map(|entry| usage::ActiveModel {
        span: Set(entry.span),
        start: Set(entry.start),
        username: Set(entry.subject.0.clone()),
        key_id: Set(entry.subject.1),
        requests: Set(entry.counts.requests),
        sentences: Set(entry.counts.sentences),
        tokens: Set(entry.counts.tokens),
        refused: Set(entry.counts.refused),
    });
    let key = [usage::Column::Span, usage::Column::Start, usage::Column::Username, usage::Column::KeyId];
    let mut add = OnConflict::columns(key);
    for (column, name) in [
        (usage::Column::Requests, "requests"),
        (usage::Column::Sentences, "sentences"),
        (usage::Column::Tokens, "tokens"),
        (usage::Column::Refused, "refused"),
    ] {
        add.value(column, Expr::cust(format!("usage.{name} + excluded.{name}")));
    }
    if !entries.is_empty() {
        usage::Entity::insert_many(rows).on_conflict(add).exec_without_returning(change).await?;
    }
    Ok(())
}
