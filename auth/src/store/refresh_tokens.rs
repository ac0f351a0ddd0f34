//! Refresh tokens that are exchanged for new ones, where they rotate.

use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter};

use super::{Store, entities::ended_refresh_token, is_new, revocations};

/// What became of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exchange {
    /// The token holds no more, and a new one is due.
    Done,
    /// The token was exchanged a moment ago, and its holder may not have heard: a new one is due, too.
    Repeated,
    /// The token was exchanged some time ago, so somebody else has it. The family has been revoked.
    Reused,
}

impl Store {
    /// Ends a refresh token. Who uses it again within `grace` seconds is served, later the end of the family is.
    pub(crate) async fn exchange_refresh_token(
        &self,
        jti: &str,
        family: &str,
        (now, grace): (i64, i64),
        (expires_at, family_expires_at): (i64, i64),
    ) -> Result<Exchange, DbErr> {
        let change = self.begin().await?;
        let ended = ended_refresh_token::ActiveModel {
            jti: Set(jti.to_owned()),
            ended_at: Set(now),
            expires_at: Set(expires_at),
        };
        let inserted = ended_refresh_token::Entity::insert(ended)
            .on_conflict_do_nothing_on([ended_refresh_token::Column::Jti])
            .exec_without_returning(&change)
            .await?;
        if is_new(&inserted) {
            change.commit().await?;
            return Ok(Exchange::Done);
        }
        let before = ended_refresh_token::Entity::find_by_id(jti).one(&change).await?;
        if before.is_some_and(|before| now <= before.ended_at + grace) {
            change.rollback().await?;
            return Ok(Exchange::Repeated);
        }
        revocations::add(&change, family, family_expires_at).await?;
        self.commit(change).await?;
        Ok(Exchange::Reused)
    }

    /// Forgets the exchanges of tokens that have expired.
    pub(crate) async fn prune_refresh_tokens(&self, now: i64) -> Result<u64, DbErr> {
        let expired = ended_refresh_token::Entity::delete_many()
            .filter(ended_refresh_token::Column::ExpiresAt.lte(now));
        Ok(expired.exec(&self.db).await?.rows_affected)
    }
}
