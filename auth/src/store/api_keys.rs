//! API keys in the database.

use muse_proto::v1::{KeyUse, VerifiableKey};
use muse_verifier::api_keys::KeyId;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr,
    EntityTrait, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{
    ApiKeyRow, Store,
    entities::{api_key, revocation_log, user},
};
use crate::clock;

/// Keys in a message to verifiers, of at most some 120 bytes each.
const PAGE_SIZE: u64 = 5_000;
/// How long a deleted key is stored.
const DELETED_KEY_RETENTION_SECONDS: i64 = 30 * 86_400;

/// Changed keys in the order of their changes.
#[derive(Debug)]
pub(crate) struct KeyPage {
    pub(crate) keys: Vec<VerifiableKey>,
    /// The cursor after the last of them.
    pub(crate) cursor: i64,
    /// Whether there may be more.
    pub(crate) full: bool,
}

/// Which keys are listed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyListFilter<'a> {
    /// Those of this user, otherwise all.
    pub(crate) owner: Option<&'a str>,
    /// Those after this one, by time of creation and id.
    pub(crate) after: (i64, i64),
    pub(crate) limit: u64,
}

/// Why a key was not created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NewKeyError {
    #[error("there is no such user, or the user is disabled")]
    NoSuchUser,
    #[error("the user has as many keys as allowed")]
    TooMany,
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl Store {
    /// Adds a key of an enabled user who has fewer than `limit`, those that were deleted within the
    /// last 30 days included.
    pub(crate) async fn add_api_key(&self, key: &ApiKeyRow, limit: u64) -> Result<(), NewKeyError> {
        let change = self.begin().await?;
        let owner = user::Entity::find()
            .filter(user::Column::Username.eq(key.owner.as_str()))
            .filter(user::Column::Disabled.eq(false));
        if owner.one(&change).await?.is_none() {
            return Err(NewKeyError::NoSuchUser);
        }
        let of_owner = api_key::Entity::find().filter(api_key::Column::Owner.eq(key.owner.as_str()));
        if of_owner.count(&change).await? >= limit {
            return Err(NewKeyError::TooMany);
        }
        let mut row = api_key::ActiveModel::from(key.clone()).reset_all();
        row.version = Set(next_version(&change).await?);
        api_key::Entity::insert(row).exec_without_returning(&change).await?;
        self.commit(change).await?;
        Ok(())
    }

    /// A key, also if it was deleted within the last 30 days.
    pub(crate) async fn api_key(&self, id: KeyId) -> Result<Option<ApiKeyRow>, DbErr> {
        api_key::Entity::find_by_id(stored(id)).one(&self.db).await
    }

    /// Changes a key that was not deleted, and returns it as changed.
    pub(crate) async fn change_api_key(
        &self,
        id: KeyId,
        apply: impl FnOnce(&mut ApiKeyRow) + Send,
    ) -> Result<Option<ApiKeyRow>, DbErr> {
        let change = self.begin().await?;
        let found = api_key::Entity::find_by_id(stored(id)).one(&change).await?;
        let Some(mut row) = found.filter(|row| row.deleted_at == 0) else {
            change.rollback().await?;
            return Ok(None);
        };
        apply(&mut row);
        row.version = next_version(&change).await?;
        api_key::ActiveModel::from(row.clone()).reset_all().update(&change).await?;
        self.commit(change).await?;
        Ok(Some(row))
    }

    /// Deletes the keys of a user, and returns how many there were.
    pub(crate) async fn delete_api_keys_of(&self, owner: &str) -> Result<u64, DbErr> {
        let change = self.begin().await?;
        let deleted = delete_of_user(&change, owner).await?;
        self.commit(change).await?;
        Ok(deleted)
    }

    /// Keys that were not deleted, by time of creation.
    pub(crate) async fn list_api_keys(&self, filter: KeyListFilter<'_>) -> Result<Vec<ApiKeyRow>, DbErr> {
        let (created_at, id) = filter.after;
        let later = Condition::any().add(api_key::Column::CreatedAt.gt(created_at)).add(
            Condition::all().add(api_key::Column::CreatedAt.eq(created_at)).add(api_key::Column::Id.gt(id)),
        );
        let mut keys = api_key::Entity::find().filter(api_key::Column::DeletedAt.eq(0)).filter(later);
        if let Some(owner) = filter.owner {
            keys = keys.filter(api_key::Column::Owner.eq(owner));
        }
        keys.order_by_asc(api_key::Column::CreatedAt)
            .order_by_asc(api_key::Column::Id)
            .limit(filter.limit)
            .all(&self.db)
            .await
    }

    /// The first keys that were changed after `cursor`.
    pub(crate) async fn api_keys_after(&self, cursor: i64) -> Result<KeyPage, DbErr> {
        let rows = api_key::Entity::find()
            .filter(api_key::Column::Version.gt(cursor))
            .order_by_asc(api_key::Column::Version)
            .limit(PAGE_SIZE)
            .all(&self.db)
            .await?;
        let full = rows.len() as u64 == PAGE_SIZE;
        let cursor = rows.last().map_or(cursor, |last| last.version);
        Ok(KeyPage { keys: rows.into_iter().map(message).collect(), cursor, full })
    }

    /// The number of the last change of a key, at least 1.
    pub(crate) async fn last_key_version(&self) -> Result<i64, DbErr> {
        key_version(&self.db).await
    }

    /// Stores on which day and from where keys were used, unless a later day is known. Verifiers are
    /// not notified.
    pub(crate) async fn record_key_uses(&self, uses: &[KeyUse]) -> Result<(), DbErr> {
        let change = self.begin().await?;
        for KeyUse { id, day, origin } in uses {
            api_key::Entity::update_many()
                .col_expr(api_key::Column::LastUsedDay, Expr::value(*day))
                .col_expr(api_key::Column::LastUsedFrom, Expr::value(origin.as_str()))
                .filter(api_key::Column::Id.eq(stored(KeyId::new(*id))))
                .filter(api_key::Column::LastUsedDay.lte(*day))
                .exec(&change)
                .await?;
        }
        change.commit().await
    }

    /// Removes keys that were deleted more than 30 days ago, and returns how many there were.
    pub(crate) async fn prune_api_keys(&self, now: i64) -> Result<u64, DbErr> {
        let old = api_key::Entity::delete_many()
            .filter(api_key::Column::DeletedAt.gt(0))
            .filter(api_key::Column::DeletedAt.lte(now - DELETED_KEY_RETENTION_SECONDS));
        Ok(old.exec(&self.db).await?.rows_affected)
    }
}

/// Deletes the keys of a user as part of a change, and returns how many there were.
pub(super) async fn delete_of_user(change: &DatabaseTransaction, owner: &str) -> Result<u64, DbErr> {
    let keys = api_key::Entity::find()
        .filter(api_key::Column::Owner.eq(owner))
        .filter(api_key::Column::DeletedAt.eq(0))
        .all(change)
        .await?;
    let count = keys.len() as u64;
    for mut row in keys {
        mark_deleted(&mut row);
        row.version = next_version(change).await?;
        api_key::ActiveModel::from(row).reset_all().update(change).await?;
    }
    Ok(count)
}

/// Marks a key as deleted, and erases its digest.
pub(crate) fn mark_deleted(row: &mut ApiKeyRow) {
    row.deleted_at = clock::now();
    row.digest.clear();
}

/// The id as it is stored: it has 60 bits.
fn stored(id: KeyId) -> i64 {
    id.number().cast_signed()
}

/// Counts a change.
async fn next_version(change: &DatabaseTransaction) -> Result<i64, DbErr> {
    revocation_log::Entity::update_many()
        .col_expr(revocation_log::Column::KeyVersion, Expr::cust("key_version + 1"))
        .exec(change)
        .await?;
    key_version(change).await
}

async fn key_version(db: &impl ConnectionTrait) -> Result<i64, DbErr> {
    let log = revocation_log::Entity::find().one(db).await?;
    log.map(|log| log.key_version).ok_or_else(|| DbErr::RecordNotFound("the revocation log".to_owned()))
}

fn message(row: ApiKeyRow) -> VerifiableKey {
    VerifiableKey {
        id: row.id.cast_unsigned(),
        digest: row.digest,
        owner: row.owner,
        expires_at: row.expires_at,
        disabled: row.disabled,
        bulk: row.bulk,
        deleted: row.deleted_at != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Role, store::fixture::store};

    fn key(id: i64, owner: &str) -> ApiKeyRow {
        ApiKeyRow {
            id,
            version: 0,
            name: format!("key {id}"),
            owner: owner.to_owned(),
            digest: vec![1; 32],
            created_at: 100,
            created_by: owner.to_owned(),
            expires_at: 0,
            disabled: false,
            bulk: false,
            deleted_at: 0,
            last_used_day: 0,
            last_used_from: String::new(),
        }
    }

    #[tokio::test]
    async fn changes_of_keys_are_numbered_without_gaps() {
        let (_folder, store) = store().await;
        assert!(matches!(store.add_api_key(&key(1, "ann"), 9).await, Err(NewKeyError::NoSuchUser)));
        store.add_user("ann", "hash", Role::User, 0).await.unwrap();
        for id in 1..=3 {
            store.add_api_key(&key(id, "ann"), 3).await.unwrap();
        }
        assert!(matches!(store.add_api_key(&key(4, "ann"), 3).await, Err(NewKeyError::TooMany)));
        let page = store.api_keys_after(0).await.unwrap();
        let ids: Vec<u64> = page.keys.iter().map(|key| key.id).collect();
        assert_eq!((ids, page.cursor, page.full), (vec![1, 2, 3], 4, false));

        let changed = store.change_api_key(KeyId::new(1), |key| key.disabled = true).await.unwrap().unwrap();
        assert_eq!(changed.version, 5);
        let used = |day, origin: &str| KeyUse { id: 1, day, origin: origin.to_owned() };
        let uses = [used(86_400, "192.0.2.0/24"), used(0, "198.51.100.0/24")];
        store.record_key_uses(&uses).await.unwrap();
        let used = store.api_key(KeyId::new(1)).await.unwrap().unwrap();
        assert_eq!((used.last_used_day, used.last_used_from.as_str()), (86_400, "192.0.2.0/24"));
        let page = store.api_keys_after(4).await.unwrap();
        assert_eq!((page.keys.len(), page.keys[0].disabled, page.cursor), (1, true, 5));

        assert_eq!(store.delete_api_keys_of("ann").await.unwrap(), 3);
        let page = store.api_keys_after(5).await.unwrap();
        assert!(page.keys.len() == 3 && page.keys.iter().all(|key| key.deleted && key.digest.is_empty()));
        assert_eq!((page.cursor, store.last_key_version().await.unwrap()), (8, 8));
        assert!(store.change_api_key(KeyId::new(1), |_| ()).await.unwrap().is_none(), "it was deleted");

        assert_eq!(store.prune_api_keys(clock::now()).await.unwrap(), 0);
        assert_eq!(store.prune_api_keys(clock::now() + DELETED_KEY_RETENTION_SECONDS).await.unwrap(), 3);
        assert_eq!(store.last_key_version().await.unwrap(), 8, "a cursor is never reused");
    }

    #[tokio::test]
    async fn keys_are_listed_by_creation_and_pages() {
        let (_folder, store) = store().await;
        for name in ["ann", "bob"] {
            store.add_user(name, "hash", Role::User, 0).await.unwrap();
        }
        for (id, owner, created_at) in [(5, "ann", 1), (3, "ann", 2), (4, "bob", 2), (1, "ann", 3)] {
            store.add_api_key(&ApiKeyRow { created_at, ..key(id, owner) }, 9).await.unwrap();
        }
        let ids = async |owner, after, limit| {
            let keys = store.list_api_keys(KeyListFilter { owner, after, limit }).await.unwrap();
            keys.iter().map(|key| key.id).collect::<Vec<_>>()
        };
        assert_eq!(ids(None, (i64::MIN, 0), 9).await, [5, 3, 4, 1]);
        assert_eq!(ids(None, (2, 3), 9).await, [4, 1]);
        assert_eq!(ids(Some("ann"), (1, 5), 1).await, [3]);
    }
}
