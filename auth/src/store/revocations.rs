//! Revocations in the database.

use muse_proto::v1::Revocation;
use sea_orm::{ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder};

use super::{Store, entities::revoked_token, inserted};

/// Revocations in the order in which they happened, and where to go on after them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredRevocations {
    pub(crate) revocations: Vec<Revocation>,
    pub(crate) cursor: i64,
}

impl Store {
    /// Revokes a token; `false` if it was revoked already.
    pub(crate) async fn revoke(&self, jti: &str, expires_at: i64) -> Result<bool, DbErr> {
        let revoked = revoked_token::ActiveModel {
            jti: Set(jti.to_owned()),
            expires_at: Set(expires_at),
            ..Default::default()
        };
        inserted(revoked_token::Entity::insert(revoked).exec_without_returning(&self.db).await)
    }

    /// The revocations after `cursor` whose tokens have not expired.
    pub(crate) async fn revocations_after(&self, cursor: i64, now: i64) -> Result<StoredRevocations, DbErr> {
        let rows = revoked_token::Entity::find()
            .filter(revoked_token::Column::Id.gt(cursor))
            .filter(revoked_token::Column::ExpiresAt.gt(now))
            .order_by_asc(revoked_token::Column::Id)
            .all(&self.db)
            .await?;
        let cursor = rows.last().map_or(cursor, |last| last.id);
        let revocations = rows.into_iter().map(|row| Revocation { jti: row.jti, expires_at: row.expires_at });
        Ok(StoredRevocations { revocations: revocations.collect(), cursor })
    }

    /// The cursor after the last revocation; 0 if there is none.
    pub(crate) async fn last_cursor(&self) -> Result<i64, DbErr> {
        let last =
            revoked_token::Entity::find().order_by_desc(revoked_token::Column::Id).one(&self.db).await?;
        Ok(last.map_or(0, |last| last.id))
    }

    /// Forgets the revocations of tokens that have expired, and says how many there were.
    pub(crate) async fn prune_revocations(&self, now: i64) -> Result<u64, DbErr> {
        let expired = revoked_token::Entity::delete_many().filter(revoked_token::Column::ExpiresAt.lte(now));
        Ok(expired.exec(&self.db).await?.rows_affected)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn revocations_are_kept_in_order_and_pruned() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("muse.db")).await.unwrap();
        for (jti, expires_at) in [("a", 100), ("b", 300), ("c", 200)] {
            assert!(store.revoke(jti, expires_at).await.unwrap());
        }
        assert!(!store.revoke("b", 300).await.unwrap(), "only once");

        let ids = |found: &StoredRevocations| -> Vec<String> {
            found.revocations.iter().map(|revocation| revocation.jti.clone()).collect()
        };
        let all = store.revocations_after(0, 100).await.unwrap();
        assert_eq!((ids(&all), all.cursor), (vec!["b".to_owned(), "c".to_owned()], 3));
        let after = store.revocations_after(2, 0).await.unwrap();
        assert_eq!((ids(&after), after.cursor), (vec!["c".to_owned()], 3));
        let none = store.revocations_after(3, 0).await.unwrap();
        assert_eq!((ids(&none), none.cursor), (vec![], 3));

        assert_eq!(store.prune_revocations(250).await.unwrap(), 2);
        assert_eq!(ids(&store.revocations_after(0, 0).await.unwrap()), ["b"]);
        // An id is never given twice, else a cursor would hide revocations.
        store.prune_revocations(1000).await.unwrap();
        store.revoke("d", 2000).await.unwrap();
        assert_eq!(store.last_cursor().await.unwrap(), 4);
    }
}
