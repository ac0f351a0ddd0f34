//! Signing keys in the database.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder,
    sea_query::Expr,
};

use super::{Store, entities::signing_key};

/// A row of the signing keys.
pub(crate) type StoredKey = signing_key::Model;

impl Store {
    /// All keys, in the order in which they sign.
    pub(crate) async fn keys(&self) -> Result<Vec<StoredKey>, DbErr> {
        keys(&self.db).await
    }

    /// Adds the key that `create` returns for the existing ones, if any.
    pub(crate) async fn add_key<E: From<DbErr>>(
        &self,
        create: impl FnOnce(&[StoredKey]) -> Result<Option<StoredKey>, E>,
    ) -> Result<Option<StoredKey>, E> {
        let change = self.begin().await?;
        let Some(key) = create(&keys(&change).await?)? else {
            change.rollback().await?;
            return Ok(None);
        };
        let row = signing_key::ActiveModel {
            kid: Set(key.kid.clone()),
            private_key: Set(key.private_key.clone()),
            created_at: Set(key.created_at),
            derivation: Set(key.derivation),
            active_from: Set(key.active_from),
            longest_lifetime: Set(key.longest_lifetime),
        };
        signing_key::Entity::insert(row).exec_without_returning(&change).await?;
        self.commit(change).await?;
        Ok(Some(key))
    }

    /// Records that tokens of these keys are valid for at least so many seconds.
    pub(crate) async fn record_token_lifetime(&self, kids: &[&str], seconds: i64) -> Result<(), DbErr> {
        signing_key::Entity::update_many()
            .col_expr(signing_key::Column::LongestLifetime, Expr::value(seconds))
            .filter(signing_key::Column::Kid.is_in(kids.iter().copied()))
            .filter(signing_key::Column::LongestLifetime.lt(seconds))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// The longest validity of any token, in seconds.
    pub(crate) async fn max_token_lifetime(&self) -> Result<i64, DbErr> {
        Ok(self.keys().await?.iter().map(|key| key.longest_lifetime).max().unwrap_or(0))
    }

    /// Deletes keys.
    pub(crate) async fn remove_keys(&self, kids: &[&str]) -> Result<(), DbErr> {
        let change = self.begin().await?;
        signing_key::Entity::delete_many()
            .filter(signing_key::Column::Kid.is_in(kids.iter().copied()))
            .exec(&change)
            .await?;
        self.commit(change).await
    }
}

async fn keys(db: &impl ConnectionTrait) -> Result<Vec<StoredKey>, DbErr> {
    signing_key::Entity::find()
        .order_by_asc(signing_key::Column::ActiveFrom)
        .order_by_asc(signing_key::Column::CreatedAt)
        .order_by_asc(signing_key::Column::Kid)
        .all(db)
        .await
}
