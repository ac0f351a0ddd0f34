//! Users in the database.

use muse_verifier::Claims;
use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{Store, UserRow, api_keys, entities::user, is_new, revocations};
use crate::{Role, usernames};

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
        !matches!(self, Self::Disabled(false) | Self::Role(_))
    }

    /// Whether it deletes the API keys of the user.
    fn deletes_keys(&self) -> bool {
        match self {
            Self::Remove | Self::Disabled(true) => true,
            Self::PasswordHash { delete_keys, .. } | Self::RevokeTokens { delete_keys } => *delete_keys,
            Self::Disabled(false) | Self::Role(_) => false,
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
    Database(#[from] DbErr),
}

impl Store {
    /// The user of exactly this name.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<UserRow>, DbErr> {
        user::Entity::find().filter(user::Column::Username.eq(name)).one(&self.db).await
    }

    /// The user of a name as typed, in any of its normal forms.
    pub(crate) async fn find_user(&self, typed: &str) -> Result<Option<UserRow>, DbErr> {
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

    /// Adds a user; `false` if another one has the name.
    pub(crate) async fn add_user(
        &self,
        name: &str,
        password_hash: &str,
        role: Role,
        now: i64,
    ) -> Result<bool, DbErr> {
        let change = self.begin().await?;
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

    /// Changes or removes a user, and returns it. With `protect_last_admin` an enabled admin
    /// must remain. A revocation of tokens can be pruned at `tokens_expire_at`.
    pub(crate) async fn change_user(
        &self,
        name: &str,
        what: &UserChange,
        tokens_expire_at: i64,
        protect_last_admin: bool,
    ) -> Result<ChangedUser, UserChangeError> {
        let change = self.begin().await?;
        let found = user::Entity::find().filter(user::Column::Username.eq(name)).one(&change).await?;
        let mut row = found.ok_or(UserChangeError::NoSuchUser)?;
        if what.revokes_tokens() {
            row.generation = revocations::add_for_user(&change, name, tokens_expire_at).await?;
        }
        let deleted_keys =
            if what.deletes_keys() { api_keys::delete_of_user(&change, name).await? } else { 0 };
        match what {
            UserChange::Remove | UserChange::RevokeTokens { .. } => (),
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
        if protect_last_admin && what.may_remove_last_admin() && !has_admin(&change).await? {
            return Err(UserChangeError::LastAdmin);
        }
        self.commit(change).await?;
        Ok(ChangedUser { user: row, deleted_keys })
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

async fn has_admin(change: &DatabaseTransaction) -> Result<bool, DbErr> {
    let admins = user::Entity::find()
        .filter(user::Column::Role.eq(Role::Admin.as_str()))
        .filter(user::Column::Disabled.eq(false));
    Ok(admins.count(change).await? > 0)
}
