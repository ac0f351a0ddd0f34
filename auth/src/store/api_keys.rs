//! API keys in the database.

use std::ops::RangeInclusive;

use muse_proto::v1::{KeyUse, VerifiableKey};
use muse_verifier::api_keys::KeyId;
use sea_orm::{
    ActiveModelTrait,
    ActiveValue::{NotSet, Set},
    ColumnTrait, Condition, ConnectionTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, Statement, TransactionTrait, Value,
    sea_query::Expr,
};

use super::{
    ApiKeyRow, Requester, Store, Unauthorized,
    entities::{api_key, revocation_log, user},
    quotas,
    requester::authorize,
    revocations,
};
use crate::{Quota, clock};

/// Keys in a message to verifiers, of at most some 120 bytes each.
const PAGE_SIZE: u64 = 5_000;
/// How many times as many keys a user may have, with the deleted ones.
const DELETED_PER_KEY: u64 = 10;
/// Keys that a statement deletes.
const DELETED_PER_STATEMENT: usize = 5_000;
/// Uses that are stored in a transaction.
const USES_PER_TRANSACTION: usize = 100;
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

/// Why a key was not created or changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyChangeError {
    #[error("there is no such user, or the user is disabled")]
    NoSuchUser,
    #[error("there is no such key, or it belongs to another user")]
    NoSuchKey,
    #[error(transparent)]
    Unauthorized(#[from] Unauthorized),
    #[error("the user has as many keys as allowed")]
    TooMany,
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl Store {
    /// Adds a key of an enabled user who has fewer than `limit`, and fewer than
    /// [`DELETED_PER_KEY`] times as many with those that were deleted within the last 30 days. The
    /// `requester` is verified in the same transaction; `None` is the operator.
    pub(crate) async fn add_api_key(
        &self,
        key: &ApiKeyRow,
        quota: Quota,
        limit: u64,
        requester: Option<&Requester>,
    ) -> Result<(), KeyChangeError> {
        let change = self.begin().await?;
        authorize(&change, requester, &key.owner).await?;
        let owner = user::Entity::find()
            .filter(user::Column::Username.eq(key.owner.as_str()))
            .filter(user::Column::Disabled.eq(false));
        if owner.one(&change).await?.is_none() {
            return Err(KeyChangeError::NoSuchUser);
        }
        let of_owner = api_key::Entity::find().filter(api_key::Column::Owner.eq(key.owner.as_str()));
        let active = of_owner.clone().filter(api_key::Column::DeletedAt.eq(0));
        if active.count(&change).await? >= limit
            || of_owner.count(&change).await? >= limit.saturating_mul(DELETED_PER_KEY)
        {
            return Err(KeyChangeError::TooMany);
        }
        let mut row = api_key::ActiveModel::from(key.clone()).reset_all();
        row.version = Set(next_versions(&change, 1).await?);
        api_key::Entity::insert(row).exec_without_returning(&change).await?;
        quotas::set(&change, &key.owner, key.id, quota, clock::now()).await?;
        self.commit(change).await?;
        Ok(())
    }

    /// A key, also if it was deleted within the last 30 days.
    pub(crate) async fn api_key(&self, id: KeyId) -> Result<Option<ApiKeyRow>, DbErr> {
        api_key::Entity::find_by_id(stored(id)).one(&self.db).await
    }

    /// Changes a key that was not deleted, and its quota if there is a new one. Returns both as
    /// changed. The `requester` is verified in the same transaction; `None` is the operator.
    pub(crate) async fn change_api_key(
        &self,
        id: KeyId,
        requester: Option<&Requester>,
        quota: Option<Quota>,
        apply: impl FnOnce(&mut ApiKeyRow) + Send,
    ) -> Result<(ApiKeyRow, Option<Quota>), KeyChangeError> {
        let change = self.begin().await?;
        let found = api_key::Entity::find_by_id(stored(id)).one(&change).await?;
        let found = found.filter(|row| row.deleted_at == 0);
        let owner = found.as_ref().map_or("", |row| row.owner.as_str());
        match authorize(&change, requester, owner).await {
            // The requester must not learn that there is the key.
            Err(Unauthorized::NotAdmin) => return Err(KeyChangeError::NoSuchKey),
            authorized => authorized?,
        }
        let mut row = found.ok_or(KeyChangeError::NoSuchKey)?;
        apply(&mut row);
        row.version = next_versions(&change, 1).await?;
        let mut changed = api_key::ActiveModel::from(row).reset_all();
        // They are reported meanwhile, outside of the lock for changes.
        (changed.last_used_day, changed.last_used_from) = (NotSet, NotSet);
        let row = changed.update(&change).await?;
        if let Some(quota) = quota {
            quotas::set(&change, &row.owner, row.id, quota, clock::now()).await?;
        }
        let quota = quotas::of(&change, &row.owner, row.id).await?;
        self.commit(change).await?;
        Ok((row, quota))
    }

    /// Deletes the keys whose owners are missing or disabled: an older version or SQL removed them.
    /// Returns how many there were.
    pub(crate) async fn delete_orphaned_api_keys(&self) -> Result<u64, DbErr> {
        if api_key::Entity::find().filter(orphaned()).one(&self.db).await?.is_none() {
            return Ok(0);
        }
        let change = self.begin().await?;
        let deleted = delete_keys(&change, orphaned()).await?;
        self.commit(change).await?;
        Ok(deleted)
    }

    /// Keys that were not deleted, by the second of their creation and the id.
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

    /// The cursors from which the changes of keys can be read: those after which no deleted key was
    /// removed.
    pub(crate) async fn key_cursors(&self) -> Result<RangeInclusive<i64>, DbErr> {
        let log = revocations::log(&self.db).await?;
        Ok(log.key_pruned_to.max(1)..=log.key_version)
    }

    /// Stores on which day and from where keys were used, unless a later day is known. Verifiers
    /// are not notified, and other changes are not blocked for long.
    pub(crate) async fn record_key_uses(&self, uses: &[KeyUse]) -> Result<(), DbErr> {
        let mut uses: Vec<&KeyUse> = uses.iter().collect();
        // In one order, so that two reports do not wait for each other.
        uses.sort_by_key(|key_use| stored(KeyId::new(key_use.id)));
        for batch in uses.chunks(USES_PER_TRANSACTION) {
            let transaction = self.db.begin().await?;
            for KeyUse { id, day, origin } in batch {
                let same_day = Condition::all()
                    .add(api_key::Column::LastUsedDay.eq(*day))
                    .add(api_key::Column::LastUsedFrom.ne(origin.as_str()));
                let news = Condition::any().add(api_key::Column::LastUsedDay.lt(*day)).add(same_day);
                api_key::Entity::update_many()
                    .col_expr(api_key::Column::LastUsedDay, Expr::value(*day))
                    .col_expr(api_key::Column::LastUsedFrom, Expr::value(origin.as_str()))
                    .filter(api_key::Column::Id.eq(stored(KeyId::new(*id))))
                    .filter(news)
                    .exec(&transaction)
                    .await?;
            }
            transaction.commit().await?;
        }
        Ok(())
    }

    /// Removes keys that were deleted more than 30 days ago, and returns how many there were.
    pub(crate) async fn prune_api_keys(&self, now: i64) -> Result<u64, DbErr> {
        let is_old = Condition::all()
            .add(api_key::Column::DeletedAt.gt(0))
            .add(api_key::Column::DeletedAt.lte(now - DELETED_KEY_RETENTION_SECONDS));
        let change = self.begin().await?;
        let last = api_key::Entity::find()
            .filter(is_old.clone())
            .order_by_desc(api_key::Column::Version)
            .one(&change)
            .await?;
        let Some(last) = last else {
            change.rollback().await?;
            return Ok(0);
        };
        let removed = api_key::Entity::delete_many().filter(is_old).exec(&change).await?.rows_affected;
        // A verifier with an earlier cursor would keep what was removed: it gets all keys.
        revocation_log::Entity::update_many()
            .col_expr(revocation_log::Column::KeyPrunedTo, Expr::value(last.version))
            .filter(revocation_log::Column::KeyPrunedTo.lt(last.version))
            .exec(&change)
            .await?;
        change.commit().await?;
        Ok(removed)
    }
}

/// Deletes the keys of a user as part of a change, and returns how many there were.
pub(super) async fn delete_of_user(change: &DatabaseTransaction, owner: &str) -> Result<u64, DbErr> {
    delete_keys(change, Condition::all().add(api_key::Column::Owner.eq(owner))).await
}

/// The condition of keys that were not deleted and whose owners are missing or disabled.
fn orphaned() -> Condition {
    let enabled = "SELECT username FROM users WHERE NOT disabled";
    Condition::all()
        .add(api_key::Column::DeletedAt.eq(0))
        .add(Expr::cust(format!("owner NOT IN ({enabled})")))
}

/// Deletes the keys of a condition, and returns how many there were. The number of statements does
/// not depend on that of the keys, because other changes wait.
async fn delete_keys(change: &DatabaseTransaction, which: Condition) -> Result<u64, DbErr> {
    // Locked by id, as uses are recorded, so that neither waits for the other for ever.
    let ids: Vec<i64> = api_key::Entity::find()
        .select_only()
        .column(api_key::Column::Id)
        .filter(which)
        .filter(api_key::Column::DeletedAt.eq(0))
        .order_by_asc(api_key::Column::Id)
        .lock_exclusive()
        .into_tuple()
        .all(change)
        .await?;
    let deleted_at = clock::now();
    for ids in ids.chunks(DELETED_PER_STATEMENT) {
        let count = i64::try_from(ids.len()).unwrap_or(i64::MAX);
        let before = next_versions(change, count).await? - count;
        // Numbers, not text: nothing to escape.
        let list = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(",");
        let sql = format!(
            "UPDATE api_keys SET version = $1 + numbered.number, deleted_at = $2, digest = $3 \
             FROM (SELECT id, row_number() OVER (ORDER BY id) AS number FROM api_keys WHERE id IN ({list})) \
             AS numbered WHERE api_keys.id = numbered.id"
        );
        let values: [Value; 3] = [before.into(), deleted_at.into(), Vec::<u8>::new().into()];
        let statement = Statement::from_sql_and_values(change.get_database_backend(), sql, values);
        change.execute_raw(statement).await?;
        quotas::remove_of_keys(change, ids, deleted_at).await?;
    }
    Ok(ids.len() as u64)
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

/// Counts changes, and returns the number of the last one.
async fn next_versions(change: &DatabaseTransaction, count: i64) -> Result<i64, DbErr> {
    revocation_log::Entity::update_many()
        .col_expr(revocation_log::Column::KeyVersion, Expr::cust(format!("key_version + {count}")))
        .exec(change)
        .await?;
    Ok(revocations::log(change).await?.key_version)
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
    use crate::{
        Role,
        store::{
            Permission, UserChange,
            fixture::{requester, store},
        },
    };

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

    async fn revoke_with_keys(store: &Store, user: &str) -> u64 {
        let change = UserChange::RevokeTokens { delete_keys: true };
        store.change_user(user, &change, i64::MAX, None).await.unwrap().deleted_keys
    }

    #[tokio::test]
    async fn requester_of_a_key_is_verified_within_the_transaction() {
        let (_folder, store) = store().await;
        for (name, role) in [("ann", Role::Admin), ("bob", Role::User)] {
            store.add_user(name, "hash", role, 0, None).await.unwrap();
        }
        let change = |what| {
            let store = store.clone();
            async move { store.change_user("ann", &what, i64::MAX, None).await.unwrap().user.generation }
        };
        let create = async |id, owner, generation| {
            let requester = requester("ann", generation, Permission::AdminOrSelf);
            store.add_api_key(&key(id, owner), Quota::NONE, 9, Some(&requester)).await
        };
        let update = async |id, generation| {
            let requester = requester("ann", generation, Permission::AdminOrSelf);
            store.change_api_key(KeyId::new(id), Some(&requester), None, |key| key.bulk = true).await
        };
        create(1, "ann", 0).await.unwrap();
        create(2, "bob", 0).await.unwrap();
        update(2, 0).await.unwrap();

        change(UserChange::Role(Role::User)).await;
        assert!(matches!(
            create(3, "bob", 0).await,
            Err(KeyChangeError::Unauthorized(Unauthorized::NotAdmin))
        ));
        assert!(matches!(update(2, 0).await, Err(KeyChangeError::NoSuchKey)));
        update(1, 0).await.unwrap();

        let now = change(UserChange::RevokeTokens { delete_keys: true }).await;
        assert!(matches!(
            create(3, "ann", 0).await,
            Err(KeyChangeError::Unauthorized(Unauthorized::TokenRevoked))
        ));
        assert!(matches!(update(1, 0).await, Err(KeyChangeError::Unauthorized(Unauthorized::TokenRevoked))));
        create(3, "ann", now).await.unwrap();
        store.revoke("family", i64::MAX).await.unwrap();
        assert!(matches!(
            create(4, "ann", now).await,
            Err(KeyChangeError::Unauthorized(Unauthorized::TokenRevoked))
        ));
        change(UserChange::Remove).await;
        assert!(matches!(
            create(4, "ann", i64::MAX).await,
            Err(KeyChangeError::Unauthorized(Unauthorized::TokenRevoked))
        ));
        assert_eq!(store.api_keys_after(0).await.unwrap().keys.iter().filter(|key| !key.deleted).count(), 1);
    }

    #[tokio::test]
    async fn keys_without_an_enabled_owner_are_deleted() {
        let (_folder, store) = store().await;
        for (id, name) in [(1, "ann"), (2, "bob"), (3, "cy"), (4, "dan")] {
            store.add_user(name, "hash", Role::User, 0, None).await.unwrap();
            store.add_api_key(&key(id, name), Quota::NONE, 9, None).await.unwrap();
        }
        assert_eq!(store.delete_orphaned_api_keys().await.unwrap(), 0);
        // As an older version does.
        for sql in [
            "DELETE FROM users WHERE username IN ('ann', 'cy')",
            "UPDATE users SET disabled = TRUE WHERE username = 'bob'",
        ] {
            store.db.execute_unprepared(sql).await.unwrap();
        }
        store.add_user("cy", "hash", Role::User, 0, None).await.unwrap();
        assert_ne!(store.api_key(KeyId::new(3)).await.unwrap().unwrap().deleted_at, 0, "another user");
        assert_eq!(store.delete_orphaned_api_keys().await.unwrap(), 2);
        let deleted =
            store.api_keys_after(0).await.unwrap().keys.into_iter().map(|key| (key.id, key.deleted));
        assert_eq!(deleted.collect::<Vec<_>>(), [(4, false), (3, true), (1, true), (2, true)]);
    }

    #[tokio::test]
    async fn changes_of_keys_are_numbered_without_gaps() {
        let (_folder, store) = store().await;
        assert!(matches!(
            store.add_api_key(&key(1, "ann"), Quota::NONE, 9, None).await,
            Err(KeyChangeError::NoSuchUser)
        ));
        store.add_user("ann", "hash", Role::User, 0, None).await.unwrap();
        for id in 1..=3 {
            store.add_api_key(&key(id, "ann"), Quota::NONE, 3, None).await.unwrap();
        }
        assert!(matches!(
            store.add_api_key(&key(4, "ann"), Quota::NONE, 3, None).await,
            Err(KeyChangeError::TooMany)
        ));
        let page = store.api_keys_after(0).await.unwrap();
        let ids: Vec<u64> = page.keys.iter().map(|key| key.id).collect();
        assert_eq!((ids, page.cursor, page.full), (vec![1, 2, 3], 4, false));

        let changed =
            store.change_api_key(KeyId::new(1), None, None, |key| key.disabled = true).await.unwrap().0;
        assert_eq!(changed.version, 5);
        let used = |day, origin: &str| KeyUse { id: 1, day, origin: origin.to_owned() };
        let uses = [used(86_400, "192.0.2.0/24"), used(0, "198.51.100.0/24")];
        store.record_key_uses(&uses).await.unwrap();
        let used = store.api_key(KeyId::new(1)).await.unwrap().unwrap();
        assert_eq!((used.last_used_day, used.last_used_from.as_str()), (86_400, "192.0.2.0/24"));
        store.change_api_key(KeyId::new(1), None, None, |key| key.last_used_day = 0).await.unwrap();
        let unchanged = store.api_key(KeyId::new(1)).await.unwrap().unwrap();
        assert_eq!(unchanged.last_used_day, 86_400, "it is only reported");
        let page = store.api_keys_after(4).await.unwrap();
        assert_eq!((page.keys.len(), page.keys[0].disabled, page.cursor), (1, true, 6));

        assert_eq!(revoke_with_keys(&store, "ann").await, 3);
        let page = store.api_keys_after(6).await.unwrap();
        assert!(page.keys.len() == 3 && page.keys.iter().all(|key| key.deleted && key.digest.is_empty()));
        assert_eq!((page.cursor, store.key_cursors().await.unwrap()), (9, 1..=9));
        let changed = store.change_api_key(KeyId::new(1), None, None, |_| ()).await;
        assert!(matches!(changed, Err(KeyChangeError::NoSuchKey)), "it was deleted");

        assert_eq!(store.prune_api_keys(clock::now()).await.unwrap(), 0);
        assert_eq!(store.prune_api_keys(clock::now() + DELETED_KEY_RETENTION_SECONDS).await.unwrap(), 3);
        assert_eq!(store.key_cursors().await.unwrap(), 9..=9, "earlier ones miss what was removed");
        store.add_api_key(&key(4, "ann"), Quota::NONE, 3, None).await.unwrap();
    }

    #[tokio::test]
    async fn keys_are_listed_by_creation_and_pages() {
        let (_folder, store) = store().await;
        for name in ["ann", "bob"] {
            store.add_user(name, "hash", Role::User, 0, None).await.unwrap();
        }
        for (id, owner, created_at) in [(5, "ann", 1), (3, "ann", 2), (4, "bob", 2), (1, "ann", 3)] {
            store
                .add_api_key(&ApiKeyRow { created_at, ..key(id, owner) }, Quota::NONE, 9, None)
                .await
                .unwrap();
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
