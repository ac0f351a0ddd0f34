//! Users in the database.

use sea_orm::{
    ActiveModelTrait, ActiveValue::Set, ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, PaginatorTrait,
    QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{Store, UserRow, entities::user, is_new, revocations};
use crate::{Role, usernames};

/// A change of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    Remove,
    Disabled(bool),
    Role(Role),
    PasswordHash(String),
    /// Ends all tokens, and changes nothing else.
    Tokens,
}

impl Change {
    /// The tokens that the user has end with it.
    fn ends_tokens(&self) -> bool {
        !matches!(self, Self::Disabled(false) | Self::Role(_))
    }

    /// The user may have been an admin who may log in, and is not afterwards.
    fn takes_an_admin(&self) -> bool {
        matches!(self, Self::Remove | Self::Disabled(true) | Self::Role(Role::User))
    }
}

/// Why a user was not changed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("there is no such user")]
    NoSuchUser,
    #[error("nobody would be left who may manage users")]
    LastAdmin,
    #[error(transparent)]
    Database(#[from] DbErr),
}

impl Store {
    /// A user, if there is one of that name.
    pub(crate) async fn user(&self, name: &str) -> Result<Option<UserRow>, DbErr> {
        user::Entity::find().filter(user::Column::Username.eq(name)).one(&self.db).await
    }

    /// A user whose name is what somebody typed, or has the same text in another normal form.
    pub(crate) async fn user_of_any_form(&self, typed: &str) -> Result<Option<UserRow>, DbErr> {
        for name in usernames::forms(typed) {
            if let Some(user) = self.user(&name).await? {
                return Ok(Some(user));
            }
        }
        Ok(None)
    }

    /// The names of all users, or only those that are not in ASCII.
    pub(crate) async fn names(&self, beyond_ascii: bool) -> Result<Vec<String>, DbErr> {
        let mut names = user::Entity::find().select_only().column(user::Column::Username);
        if beyond_ascii {
            names = names.filter(Expr::cust("length(username) <> octet_length(username)"));
        }
        names.into_tuple().all(&self.db).await
    }

    /// Adds a user; `false` if the name is taken.
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
            self.commit(change).await?;
        } else {
            change.rollback().await?;
        }
        Ok(added)
    }

    /// Changes a user, and with `keep_an_admin` only if somebody may manage users afterwards. Tokens that end with
    /// it are expired at `tokens_expire_at`. Returns the user as changed, or as removed.
    pub(crate) async fn change_user(
        &self,
        name: &str,
        what: &Change,
        tokens_expire_at: i64,
        keep_an_admin: bool,
    ) -> Result<UserRow, ChangeError> {
        let change = self.begin().await?;
        let found = user::Entity::find().filter(user::Column::Username.eq(name)).one(&change).await?;
        let mut row = found.ok_or(ChangeError::NoSuchUser)?;
        if what.ends_tokens() {
            row.generation = revocations::add_for_user(&change, name, tokens_expire_at).await?;
        }
        match what {
            Change::Remove | Change::Tokens => (),
            Change::Disabled(disabled) => row.disabled = *disabled,
            Change::Role(role) => row.role = role.as_str().to_owned(),
            Change::PasswordHash(hash) => row.password_hash.clone_from(hash),
        }
        if *what == Change::Remove {
            user::Entity::delete_by_id(row.id).exec(&change).await?;
        } else {
            let changed = user::ActiveModel::from(row.clone()).reset_all();
            user::Entity::update(changed).exec(&change).await?;
        }
        if keep_an_admin && what.takes_an_admin() && !has_admin(&change).await? {
            return Err(ChangeError::LastAdmin);
        }
        self.commit(change).await?;
        Ok(row)
    }

    /// Replaces the hash of an unchanged password by a newer one, unless the password was changed meanwhile.
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
