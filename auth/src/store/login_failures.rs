//! Failed logins, and the addresses at which users are known.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::OnConflict,
};

use super::{
    Store,
    entities::{known_address, login_failure},
};

/// The failed logins of a subject: their number, and the time of the last one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Failures {
    pub(crate) count: i64,
    pub(crate) last_at: i64,
}

impl Store {
    /// The failures of some subjects, in their order.
    pub(crate) async fn login_failures(&self, subjects: &[&str]) -> Result<Vec<Failures>, DbErr> {
        let rows = login_failure::Entity::find()
            .filter(login_failure::Column::Subject.is_in(subjects.iter().copied()))
            .all(&self.db)
            .await?;
        let of = |subject: &&str| {
            let row = rows.iter().find(|row| row.subject == *subject);
            row.map_or_else(Failures::default, |row| Failures {
                count: row.failures,
                last_at: row.last_failed_at,
            })
        };
        Ok(subjects.iter().map(of).collect())
    }

    /// Replaces the failures of some subjects in one statement, which waits for a lock once.
    pub(crate) async fn set_login_failures(&self, changed: &[(&str, Failures)]) -> Result<(), DbErr> {
        use login_failure::Column::{Failures as Count, LastFailedAt, Subject};
        if changed.is_empty() {
            return Ok(());
        }
        let rows = changed.iter().map(|(subject, failures)| login_failure::ActiveModel {
            subject: Set((*subject).to_owned()),
            failures: Set(failures.count),
            last_failed_at: Set(failures.last_at),
        });
        login_failure::Entity::insert_many(rows)
            .on_conflict(OnConflict::column(Subject).update_columns([Count, LastFailedAt]).to_owned())
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }

    /// The time of the last login of a pair of name and address; 0 if there was none.
    pub(crate) async fn last_login(&self, subject: &str) -> Result<i64, DbErr> {
        let found = known_address::Entity::find_by_id(subject).one(&self.db).await?;
        Ok(found.map_or(0, |row| row.last_login_at))
    }

    /// Records a login of a pair of name and address.
    pub(crate) async fn record_login(&self, subject: &str, now: i64) -> Result<(), DbErr> {
        let row = known_address::ActiveModel { subject: Set(subject.to_owned()), last_login_at: Set(now) };
        known_address::Entity::insert(row)
            .on_conflict(
                OnConflict::column(known_address::Column::Subject)
                    .update_column(known_address::Column::LastLoginAt)
                    .to_owned(),
            )
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }

    /// Deletes failures and logins before these times, and the oldest failures beyond `most`.
    pub(crate) async fn prune_logins(
        &self,
        failures_before: i64,
        logins_before: i64,
        most: u64,
    ) -> Result<u64, DbErr> {
        let beyond = login_failure::Entity::find()
            .order_by_desc(login_failure::Column::LastFailedAt)
            .offset(most)
            .limit(1)
            .one(&self.db)
            .await?;
        let failures_before =
            beyond.map_or(failures_before, |row| failures_before.max(row.last_failed_at + 1));
        let failures = login_failure::Entity::delete_many()
            .filter(login_failure::Column::LastFailedAt.lt(failures_before))
            .exec(&self.db)
            .await?;
        let logins = known_address::Entity::delete_many()
            .filter(known_address::Column::LastLoginAt.lt(logins_before))
            .exec(&self.db)
            .await?;
        Ok(failures.rows_affected + logins.rows_affected)
    }
}
