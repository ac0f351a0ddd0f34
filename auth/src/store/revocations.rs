//! Revocations in the database.

use muse_proto::v1::{Revocation, UserTokens, revocation::What};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter,
    QueryOrder, QuerySelect,
};

use super::{
    Store,
    entities::{revocation, revocation_log},
    is_new,
};

/// Rows of a page.
const PAGE_SIZE: u64 = 10_000;

/// Revocations in the order of their commits.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RevocationPage {
    pub(crate) revocations: Vec<Revocation>,
    /// The position after them.
    pub(crate) cursor: i64,
    /// Whether there may be more.
    pub(crate) full: bool,
}

impl Store {
    /// Revokes a token or a family; `false` if it was revoked already.
    pub(crate) async fn revoke(&self, jti: &str, expires_at: i64) -> Result<bool, DbErr> {
        let change = self.begin().await?;
        let first = add(&change, jti, expires_at).await?;
        if first {
            self.commit(change).await?;
        } else {
            change.rollback().await?;
        }
        Ok(first)
    }

    /// Whether one of these tokens or families is revoked.
    pub(crate) async fn is_revoked(&self, ids: &[&str]) -> Result<bool, DbErr> {
        any_revoked(&self.db, ids).await
    }

    /// A page of revocations after `cursor` whose tokens have not expired.
    pub(crate) async fn revocations_after(&self, cursor: i64, now: i64) -> Result<RevocationPage, DbErr> {
        let rows = revocation::Entity::find()
            .filter(revocation::Column::Id.gt(cursor))
            .filter(revocation::Column::ExpiresAt.gt(now))
            .order_by_asc(revocation::Column::Id)
            .limit(PAGE_SIZE)
            .all(&self.db)
            .await?;
        let full = rows.len() as u64 == PAGE_SIZE;
        let cursor = rows.last().map_or(cursor, |last| last.id);
        Ok(RevocationPage { revocations: rows.into_iter().filter_map(message).collect(), cursor, full })
    }

    /// The cursor after the last revocation; 0 if there is none.
    pub(crate) async fn last_cursor(&self) -> Result<i64, DbErr> {
        let last = revocation::Entity::find().order_by_desc(revocation::Column::Id).one(&self.db).await?;
        Ok(last.map_or(0, |last| last.id))
    }

    /// The name of the revocation log, in which cursors are positions. Each database has another.
    pub(crate) async fn revocation_log(&self) -> Result<String, DbErr> {
        Ok(log(&self.db).await?.name)
    }

    /// Deletes the revocations of expired tokens, and returns their number.
    pub(crate) async fn prune_revocations(&self, now: i64) -> Result<u64, DbErr> {
        let expired = revocation::Entity::delete_many().filter(revocation::Column::ExpiresAt.lte(now));
        Ok(expired.exec(&self.db).await?.rows_affected)
    }
}

/// The row of the revocation log.
pub(super) async fn log(db: &impl ConnectionTrait) -> Result<revocation_log::Model, DbErr> {
    let log = revocation_log::Entity::find().one(db).await?;
    log.ok_or_else(|| DbErr::RecordNotFound("the revocation log".to_owned()))
}

/// Whether one of these tokens or families is revoked.
pub(super) async fn any_revoked(db: &impl ConnectionTrait, ids: &[&str]) -> Result<bool, DbErr> {
    let found = revocation::Entity::find().filter(revocation::Column::Jti.is_in(ids.iter().copied()));
    Ok(found.one(db).await?.is_some())
}

/// Adds the revocation of a token or a family; `false` if there is one.
pub(super) async fn add(change: &DatabaseTransaction, jti: &str, expires_at: i64) -> Result<bool, DbErr> {
    let revoked = revocation::ActiveModel {
        jti: Set(Some(jti.to_owned())),
        expires_at: Set(expires_at),
        ..Default::default()
    };
    let inserted = revocation::Entity::insert(revoked)
        .on_conflict_do_nothing_on([revocation::Column::Jti])
        .exec_without_returning(change)
        .await?;
    Ok(is_new(&inserted))
}

/// Revokes all tokens of a user, and returns the generation of the later ones.
pub(super) async fn add_for_user(
    change: &DatabaseTransaction,
    username: &str,
    expires_at: i64,
) -> Result<i64, DbErr> {
    let revoked = revocation::ActiveModel {
        username: Set(Some(username.to_owned())),
        expires_at: Set(expires_at),
        ..Default::default()
    };
    Ok(revocation::Entity::insert(revoked).exec(change).await?.last_insert_id)
}

/// The generation of a new user's tokens: an earlier user of the same name may have revoked ones.
pub(super) async fn generation(change: &DatabaseTransaction, username: &str) -> Result<i64, DbErr> {
    let last = revocation::Entity::find()
        .filter(revocation::Column::Username.eq(username))
        .order_by_desc(revocation::Column::Id);
    Ok(last.one(change).await?.map_or(0, |last| last.id))
}

fn message(row: revocation::Model) -> Option<Revocation> {
    let what = match (row.jti, row.username) {
        (Some(jti), _) => What::Jti(jti),
        (None, Some(username)) => What::User(UserTokens { username, before_generation: row.id }),
        // This service does not write such rows.
        (None, None) => return None,
    };
    Some(Revocation { what: Some(what), expires_at: row.expires_at })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::fixture::store;

    #[tokio::test]
    async fn revocations_are_paged_in_order_and_pruned() {
        let (_folder, store) = store().await;
        for (jti, expires_at) in [("a", 100), ("b", 300), ("c", 200)] {
            assert!(store.revoke(jti, expires_at).await.unwrap());
        }
        assert!(!store.revoke("b", 300).await.unwrap(), "only once");
        assert!(store.is_revoked(&["x", "c"]).await.unwrap());
        assert!(!store.is_revoked(&["x", "y"]).await.unwrap());

        let ids = |page: &RevocationPage| -> Vec<String> {
            let id = |revocation: &Revocation| match revocation.what.clone() {
                Some(What::Jti(jti)) => jti,
                other => panic!("{other:?}"),
            };
            page.revocations.iter().map(id).collect()
        };
        let all = store.revocations_after(0, 100).await.unwrap();
        assert_eq!((ids(&all), all.cursor, all.full), (vec!["b".to_owned(), "c".to_owned()], 3, false));
        let after = store.revocations_after(2, 0).await.unwrap();
        assert_eq!((ids(&after), after.cursor), (vec!["c".to_owned()], 3));
        let none = store.revocations_after(3, 0).await.unwrap();
        assert_eq!((ids(&none), none.cursor), (vec![], 3));

        assert_eq!(store.prune_revocations(250).await.unwrap(), 2);
        assert_eq!(ids(&store.revocations_after(0, 0).await.unwrap()), ["b"]);
        // Ids are never reused, otherwise a cursor could skip revocations.
        store.prune_revocations(1000).await.unwrap();
        store.revoke("d", 2000).await.unwrap();
        assert_eq!(store.last_cursor().await.unwrap(), 4);
    }
}
