//! The database: the one place that knows SQL is behind this.

mod entities;
mod file;
mod migrations;
mod open;
mod revocations;
mod users;

use sea_orm::{ActiveValue::Set, DatabaseConnection, DbErr, EntityTrait, QueryOrder, SqlErr};

use entities::signing_key;

pub(crate) use revocations::StoredRevocations;

/// A pool of connections to the database. A clone is another handle on it.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    db: DatabaseConnection,
}

impl Store {
    /// The signing key that was made last, and its id.
    pub(crate) async fn newest_key(&self) -> Result<Option<(String, Vec<u8>)>, DbErr> {
        let newest = signing_key::Entity::find().order_by_desc(signing_key::Column::CreatedAt);
        Ok(newest.one(&self.db).await?.map(|key| (key.kid, key.private_key)))
    }

    /// Keeps a signing key.
    pub(crate) async fn add_key(&self, kid: &str, private_key: &[u8], now: i64) -> Result<(), DbErr> {
        let key = signing_key::ActiveModel {
            kid: Set(kid.to_owned()),
            private_key: Set(private_key.to_vec()),
            created_at: Set(now),
        };
        signing_key::Entity::insert(key).exec_without_returning(&self.db).await?;
        Ok(())
    }

    /// Closes all connections, which also folds the write-ahead log back into the file.
    pub(crate) async fn close(self) {
        // What was answered is on disk already; there is nobody left to tell.
        let _ = self.db.close().await;
    }
}

/// `true` if something was inserted, `false` if a unique column held its value already.
fn inserted<T>(outcome: Result<T, DbErr>) -> Result<bool, DbErr> {
    match outcome {
        Ok(_) => Ok(true),
        Err(failure) if matches!(failure.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) => Ok(false),
        Err(failure) => Err(failure),
    }
}
