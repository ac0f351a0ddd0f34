//! Users in the database.

use muse_verifier::Claims;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{
    Requester, Store, Unauthorized, UserRow, api_keys, entities::user, is_new, quotas, requester::authorize,
    revocations,
};
use crate::{Quota, Role, clock, usernames};

impl UserRow {
    pub(crate) fn role(&self) -> Role {
        Role::from_name(&self.role)
    }

    /// Whether tokens of the user with these claims are valid: the user is enabled, and the tokens
    /// were issued after the last revocation of all tokens.
    pub(crate) fn accepts(&self, claims: &Claims) -> bool {
        !self.disabled && self.generation <= claims.generation
    }
}

/// A change of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UserChange {
    Remove,
    Disabled(bool),
    Role(Role),
    Quota(Quota),
    PasswordHash {
        hash: String,
        delete_keys: bool,
    },
    /// Revokes the tokens, and on request deletes the API keys.
    RevokeTokens {
        delete_keys: bool,
    },
}

impl UserChange {
    /// Whether it revokes the tokens of the user.
    fn revokes_tokens(&self) -> bool {
        !matches!(self, Self::Disabled(false) | Self::Role(_) | Self::Quota(_))
    }

    /// Whether it deletes the API keys of the user.
    fn deletes_keys(&self) -> bool {
        match self {
            Self::Remove | Self::Disabled(true) => true,
            Self::PasswordHash { delete_keys, .. } | Self::RevokeTokens { delete_keys } => *delete_keys,
            Self::Disabled(false) | Self::Role(_) | Self::Quota(_) => false,
        }
    }

    /// Whether the user may be an enabled admin before the change, and is none afterwards.
    fn may_remove_last_admin(&self) -> bool {
        matches!(self, Self::Remove | Self::Disabled(true) | Self::Role(Role::User))
    }
}

/// A user after a change, or before the removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChangedUser {
    pub(crate) user: UserRow,
    pub(crate) quota: Option<Quota>,
    /// The number of API keys that were deleted.
    pub(crate) deleted_keys: u64,
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UserChangeError {
    #[error("there is no such user")]
    NoSuchUser,
    #[error("no enabled admin would remain")]
    LastAdmin,
    #[error(transparent)]
    Unauthorized(#[from] Unauthorized),
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl Store {
    /// The user of exactly this name.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<UserRow>, DbErr> {
        user::Entity::find().filter(user::Column::Username.eq(name)).one(&self.db).await
    }

    /// The user of a name as typed, in any of its normal forms.
    pub(crate) async fn find_user(&self, typed: &str) -> Result<Option<UserRow>, DbErr> {
        if !may_be_stored(typed) {
            return Ok(None);
        }
        for name in usernames::normal_forms(typed) {
            if let Some(user) = self.user(&name).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// The names of all users, or only those beyond ASCII.
    pub(crate) async fn names(&self, non_ascii_only: bool) -> Result<Vec<String>, DbErr> {
        let mut names = user::Entity::find().select_only().column(user::Column::Username);
        if non_ascii_only {
            names = names.filter(Expr::cust("length(username) <> octet_length(username)"));
        }
        names.into_tuple().all(&self.db).await
    }

    /// Adds a user; `false` if another one has the name. The `requester` is verified in the same
    /// transaction; `None` is the operator.
    pub(crate) async fn add_user(
        &self,
        name: &str,
        password_hash: &str,
        role: Role,
        now: i64,
        requester: Option<&Requester>,
    ) -> Result<bool, UserChangeError> {
        let change = self.begin().await?;
        authorize(&change, requester, name).await?;
        let user = user::ActiveModel {
            username: Set(name.to_owned()),
            password_hash: Set(password_hash.to_owned()),
            created_at: Set(now),
            role: Set(role.as_str().to_owned()),
            disabled: Set(false),
            generation: Set(revocations::generation(&change, name).await?),
            ..Default::default()
        };
        let inserted = user::Entity::insert(user)
            .on_conflict_do_nothing_on([user::Column::Username])
            .exec_without_returning(&change)
            .await?;
        let added = is_new(&inserted);
        if added {
            // Those of an earlier user of the name that an older version removed.
            api_keys::delete_of_user(&change, name).await?;
            self.commit(change).await?;
        } else {
            change.rollback().await?;
        }
        Ok(added)
    }

    /// Changes or removes a user, and returns it. The `requester` is verified in the same
    /// transaction, and must leave an enabled admin; `None` is the operator. A revocation of tokens
    /// can be pruned at `tokens_expire_at`.
    pub(crate) async fn change_user(
        &self,
        name: &str,
        what: &UserChange,
        tokens_expire_at: i64,
        requester: Option<&Requester>,
    ) -> Result<ChangedUser, UserChangeError> {
        let change = self.begin().await?;
        authorize(&change, requester, name).await?;
        if !may_be_stored(name) {
            return Err(UserChangeError::NoSuchUser);
        }
        let found = user::Entity::find().filter(user::Column::Username.eq(name)).one(&change).await?;
        let mut row = found.ok_or(UserChangeError::NoSuchUser)?;
        if what.revokes_tokens() {
            row.generation = revocations::add_for_user(&change, name, tokens_expire_at).await?;
        }
        let deleted_keys =
            if what.deletes_keys() { api_keys::delete_of_user(&change, name).await? } else { 0 };
        match what {
            UserChange::Remove => quotas::set(&change, name, 0, Quota::NONE, clock::now()).await?,
            UserChange::RevokeTokens { .. } => (),
            UserChange::Quota(quota) => quotas::set(&change, name, 0, *quota, clock::now()).await?,
            UserChange::Disabled(disabled) => row.disabled = *disabled,
            UserChange::Role(role) => row.role = role.as_str().to_owned(),
            UserChange::PasswordHash { hash, .. } => row.password_hash.clone_from(hash),
        }
        if *what == UserChange::Remove {
            user::Entity::delete_by_id(row.id).exec(&change).await?;
        } else {
            let changed = user::ActiveModel::from(row.clone()).reset_all();
            user::Entity::update(changed).exec(&change).await?;
        }
        if requester.is_some() && what.may_remove_last_admin() && !has_admin(&change).await? {
            return Err(UserChangeError::LastAdmin);
        }
        let quota = quotas::of(&change, name, 0).await?;
        self.commit(change).await?;
        Ok(ChangedUser { user: row, quota, deleted_keys })
    }

    /// Replaces the hash of a password by a newer one, unless the password was changed meanwhile.
    pub(crate) async fn upgrade_hash(&self, name: &str, from: &str, to: &str) -> Result<(), DbErr> {
        user::Entity::update_many()
            .col_expr(user::Column::PasswordHash, Expr::value(to))
            .filter(user::Column::Username.eq(name))
            .filter(user::Column::PasswordHash.eq(from))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// At most `limit` users whose names come after `after`, by name.
    pub(crate) async fn users_after(&self, after: &str, limit: u64) -> Result<Vec<UserRow>, DbErr> {
        user::Entity::find()
            .filter(user::Column::Username.gt(after))
            .order_by_asc(user::Column::Username)
            .limit(limit)
            .all(&self.db)
            .await
    }

    /// Whether there is any user.
    pub(crate) async fn has_users(&self) -> Result<bool, DbErr> {
        Ok(user::Entity::find().limit(1).one(&self.db).await?.is_some())
    }
}

/// Whether there may be a user of this name: Postgres fails for NUL, which no name contains.
pub(super) fn may_be_stored(name: &str) -> bool {
    !name.contains('\0')
}

async fn has_admin(change: &DatabaseTransaction) -> Result<bool, DbErr> {
    let admins = user::Entity::find()
        .filter(user::Column::Role.eq(Role::Admin.as_str()))
        .filter(user::Column::Disabled.eq(false));
    Ok(admins.count(change).await? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        Permission,
        fixture::{requester, store},
    };

    /// As calls in flight: they were authenticated before the changes of this test.
    #[tokio::test]
    async fn requester_is_verified_within_the_transaction() {
        let (_folder, store) = store().await;
        for (name, role) in [("ann", Role::Admin), ("bob", Role::User), ("eve", Role::Admin)] {
            store.add_user(name, "hash", role, 0, None).await.unwrap();
        }
        let change = async |name, what, requester: Option<&Requester>| {
            store.change_user(name, &what, i64::MAX, requester).await.map(|changed| changed.user.generation)
        };
        let revoke = || UserChange::RevokeTokens { delete_keys: false };
        let password = || UserChange::PasswordHash { hash: "other".to_owned(), delete_keys: false };
        let ann = requester("ann", 0, Permission::Admin);
        let ann_herself = requester("ann", 0, Permission::AdminOrSelf);
        let demote_eve = || change("eve", UserChange::Role(Role::User), Some(&ann));
        demote_eve().await.unwrap();
        assert!(store.add_user("dan", "hash", Role::User, 0, Some(&ann)).await.unwrap());

        change("ann", UserChange::Role(Role::User), None).await.unwrap();
        let not_admin = |result| matches!(result, Err(UserChangeError::Unauthorized(Unauthorized::NotAdmin)));
        for what in
            [UserChange::Remove, UserChange::Disabled(true), UserChange::Role(Role::Admin), password()]
        {
            assert!(not_admin(change("bob", what.clone(), Some(&ann)).await), "{what:?}");
            assert!(not_admin(change("ann", what.clone(), Some(&ann)).await), "herself, {what:?}");
            assert!(not_admin(change("nobody", what.clone(), Some(&ann)).await), "{what:?}");
        }
        assert!(not_admin(change("bob", revoke(), Some(&ann_herself)).await));
        let added = store.add_user("cy", "hash", Role::Admin, 0, Some(&ann)).await;
        assert!(matches!(added, Err(UserChangeError::Unauthorized(Unauthorized::NotAdmin))));
        let now = change("ann", revoke(), Some(&ann_herself)).await.unwrap();

        let revoked =
            |result| matches!(result, Err(UserChangeError::Unauthorized(Unauthorized::TokenRevoked)));
        assert!(revoked(change("ann", password(), Some(&ann_herself)).await), "all tokens were revoked");
        let ann_herself = requester("ann", now, Permission::AdminOrSelf);
        let now = change("ann", password(), Some(&ann_herself)).await.unwrap();
        store.revoke("family", i64::MAX).await.unwrap();
        let ann_herself = requester("ann", now, Permission::AdminOrSelf);
        assert!(revoked(change("ann", revoke(), Some(&ann_herself)).await), "the family was revoked");
        change("ann", UserChange::Remove, None).await.unwrap();
        assert!(revoked(change("bob", revoke(), Some(&requester("ann", i64::MAX, Permission::Admin))).await));
        let mut names = store.names(false).await.unwrap();
        names.sort_unstable();
        assert_eq!(names, ["bob", "dan", "eve"]);
    }
}
