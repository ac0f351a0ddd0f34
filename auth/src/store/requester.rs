//! Who requests a change. The requester is verified in the transaction of the change.

use std::sync::Arc;

use muse_verifier::Claims;
use sea_orm::{ColumnTrait, DatabaseTransaction, DbErr, EntityTrait, QueryFilter};

use super::{UserRow, entities::user, revocations};
use crate::Role;

/// What a change of a user requires of its requester.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Permission {
    /// The role admin.
    Admin,
    /// The role admin, or to be the user who is changed.
    AdminOrSelf,
}

/// The user who requests a change of a user, by the claims of the token.
#[derive(Debug, Clone)]
pub(crate) struct Requester {
    pub(crate) claims: Arc<Claims>,
    pub(crate) permission: Permission,
}

impl Requester {
    /// Whether the requester may change the user `name`; `None` if the token was revoked.
    pub(super) async fn may_change(
        &self,
        change: &DatabaseTransaction,
        name: &str,
    ) -> Result<Option<bool>, DbErr> {
        let user = user_of_token(change, &self.claims).await?;
        let is_self = |user: &UserRow| self.permission == Permission::AdminOrSelf && user.username == name;
        Ok(user.map(|user| user.role() == Role::Admin || is_self(&user)))
    }
}

/// The user of a token as of now; `None` if the token or its user was revoked since the
/// authentication of the call.
pub(super) async fn user_of_token(
    change: &DatabaseTransaction,
    claims: &Claims,
) -> Result<Option<UserRow>, DbErr> {
    if revocations::any_revoked(change, &[&claims.jti, claims.family_id()]).await? {
        return Ok(None);
    }
    let user = user::Entity::find().filter(user::Column::Username.eq(claims.sub.as_str())).one(change);
    Ok(user.await?.filter(|user| user.accepts(claims)))
}
