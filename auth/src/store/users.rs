//! Users in the database.

use sea_orm::{
    ActiveValue::Set, ColumnTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect, sea_query::Expr,
};

use super::{Store, entities::user, inserted};
use crate::User;

impl Store {
    /// Adds a user; `false` if the name is taken.
    pub(crate) async fn add_user(&self, name: &str, password_hash: &str, now: i64) -> Result<bool, DbErr> {
        let user = user::ActiveModel {
            username: Set(name.to_owned()),
            password_hash: Set(password_hash.to_owned()),
            created_at: Set(now),
            ..Default::default()
        };
        inserted(user::Entity::insert(user).exec_without_returning(&self.db).await)
    }

    /// The hash of a user's password; `None` if there is no such user.
    pub(crate) async fn password_hash(&self, name: &str) -> Result<Option<String>, DbErr> {
        let found = user::Entity::find().filter(user::Column::Username.eq(name)).one(&self.db).await?;
        Ok(found.map(|user| user.password_hash))
    }

    /// Replaces the hash of a user's password; `false` if there is no such user.
    pub(crate) async fn set_password_hash(&self, name: &str, password_hash: &str) -> Result<bool, DbErr> {
        let changed = user::Entity::update_many()
            .col_expr(user::Column::PasswordHash, Expr::value(password_hash))
            .filter(user::Column::Username.eq(name))
            .exec(&self.db)
            .await?;
        Ok(changed.rows_affected > 0)
    }

    /// Removes a user; `false` if there is no such user.
    pub(crate) async fn remove_user(&self, name: &str) -> Result<bool, DbErr> {
        let removed =
            user::Entity::delete_many().filter(user::Column::Username.eq(name)).exec(&self.db).await?;
        Ok(removed.rows_affected > 0)
    }

    /// All users, by name.
    pub(crate) async fn users(&self) -> Result<Vec<User>, DbErr> {
        let users = user::Entity::find().order_by_asc(user::Column::Username).all(&self.db).await?;
        Ok(users.into_iter().map(|user| User { name: user.username, created_at: user.created_at }).collect())
    }

    /// Whether there is any user.
    pub(crate) async fn has_users(&self) -> Result<bool, DbErr> {
        Ok(user::Entity::find().limit(1).one(&self.db).await?.is_some())
    }
}
