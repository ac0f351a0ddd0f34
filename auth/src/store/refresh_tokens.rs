//! Rotation of refresh tokens: each is exchanged for a new one.

use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter};

use super::{Store, entities::ended_refresh_token, is_new, revocations};

/// The outcome of an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RefreshExchange {
    /// The token has ended; the client gets a new one.
    Done,
    /// The token was exchanged within the grace period, so the response may have been lost: the
    /// client gets another new one.
    Repeated,
    /// The token was exchanged before that, so it may be stolen. Its family has been revoked.
    Reused,
}

/// The use of a refresh token. Times are Unix times in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RefreshTokenUse<'a> {
    /// The id of the token.
    pub(crate) jti: &'a str,
    /// The id of its family.
    pub(crate) family: &'a str,
    /// The time of the use.
    pub(crate) now: i64,
    /// Seconds after the first use in which another use is allowed.
    pub(crate) grace: i64,
    /// When the token expires.
    pub(crate) expires_at: i64,
    /// When the last token of the family expires.
    pub(crate) family_expires_at: i64,
}

impl Store {
    /// Ends a refresh token. Reuse within `grace` seconds is allowed; later reuse revokes the
    /// family.
    pub(crate) async fn exchange_refresh_token(
        &self,
        RefreshTokenUse { jti, family, now, grace, expires_at, family_expires_at }: RefreshTokenUse<'_>,
    ) -> Result<RefreshExchange, DbErr> {
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
            return Ok(RefreshExchange::Done);
        }
        let previous = ended_refresh_token::Entity::find_by_id(jti).one(&change).await?;
        if previous.is_some_and(|previous| now <= previous.ended_at + grace) {
            change.rollback().await?;
            return Ok(RefreshExchange::Repeated);
        }
        revocations::add(&change, family, family_expires_at).await?;
        self.commit(change).await?;
        Ok(RefreshExchange::Reused)
    }

    /// Deletes the exchanges of expired tokens.
    pub(crate) async fn prune_refresh_tokens(&self, now: i64) -> Result<u64, DbErr> {
        let expired = ended_refresh_token::Entity::delete_many()
            .filter(ended_refresh_token::Column::ExpiresAt.lte(now));
        Ok(expired.exec(&self.db).await?.rows_affected)
    }
}
