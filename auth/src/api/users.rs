//! `muse.v1.UserService`.

use muse_proto::{
    Error,
    v1::{
        AddUserRequest, AddUserResponse, GetUserRequest, GetUserResponse, ListUsersRequest,
        ListUsersResponse, RemoveUserRequest, RemoveUserResponse, Role as RoleMessage, SetDisabledRequest,
        SetDisabledResponse, SetPasswordRequest, SetPasswordResponse, SetQuotaRequest, SetQuotaResponse,
        SetRoleRequest, SetRoleResponse, user_service_server,
    },
};
use muse_verifier::TokenKind;
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use crate::{
    Quota,
    authentication::{PasswordAuthenticator, Session, TokenAuthenticator},
    error::invalid,
    pages,
    store::Permission,
    users::{Role, User, UserUpdate, Users},
};

use super::paging;

/// Manages users.
#[derive(Clone)]
pub(crate) struct UserService {
    pub(crate) passwords: PasswordAuthenticator,
    pub(crate) tokens: TokenAuthenticator,
    pub(crate) users: Users,
}

impl UserService {
    /// Authenticates the caller, who must be an admin.
    async fn authenticate_admin<T>(
        &self,
        request: &Request<T>,
        action: &str,
        user: &str,
    ) -> Result<Session, Error> {
        let session = self.tokens.authenticate(request, Some(TokenKind::Access)).await?;
        session
            .require_admin()
            .inspect_err(|_| session.audit_event(action, Some(user)).rejected("not an admin"))?;
        Ok(session)
    }

    /// The users, for changes that an admin requests.
    fn users_for(&self, admin: &Session) -> Users {
        self.users.on_behalf_of(&admin.claims, Permission::Admin)
    }

    /// The stored name of the user whom a request names; an empty name is the caller.
    async fn named_or_own(&self, session: &Session, name: String) -> Result<String, Error> {
        Ok(match name.as_str() {
            "" => session.user.username.clone(),
            named => self.users.stored_name(named).await?,
        })
    }

    async fn set_password(&self, session: &Session, request: SetPasswordRequest) -> Result<User, Error> {
        let own = &session.user.username;
        let name = self.named_or_own(session, request.username).await?;
        let event = session.audit_event("set password", Some(&name));
        let mut permission = Permission::Admin;
        if let Err(denied) = session.require_admin() {
            if name != *own {
                event.rejected("not an admin");
                return Err(denied);
            }
            // Throttled like a login: a stolen token does not allow faster guessing.
            let current = SecretString::from(request.current_password);
            self.passwords.log_in(name.clone(), current, session.from).await?;
            permission = Permission::AdminOrSelf;
        }
        let users = self.users.on_behalf_of(&session.claims, permission);
        let password = SecretString::from(request.password);
        let changed = users.set_password(&name, password, request.delete_keys).await;
        event.outcome(changed)
    }
}

fn role(number: i32) -> Result<Role, Error> {
    match RoleMessage::try_from(number) {
        Ok(RoleMessage::Unspecified | RoleMessage::User) => Ok(Role::User),
        Ok(RoleMessage::Admin) => Ok(Role::Admin),
        Err(_) => Err(invalid("role", format!("{number} is not a role"))),
    }
}

#[tonic::async_trait]
impl user_service_server::UserService for UserService {
    async fn add_user(&self, request: Request<AddUserRequest>) -> Result<Response<AddUserResponse>, Status> {
        let admin = self.authenticate_admin(&request, "add user", &request.get_ref().username).await?;
        let request = request.into_inner();
        let role = role(request.role)?;
        let password = SecretString::from(request.password);
        let added = self.users_for(&admin).add(&request.username, password, role).await;
        let added = added.map(|user| UserUpdate { user, deleted_keys: 0 });
        let user = admin.audit_event("add user", Some(&request.username)).outcome(added)?;
        Ok(Response::new(AddUserResponse { user: Some(user.into()) }))
    }

    async fn remove_user(
        &self,
        request: Request<RemoveUserRequest>,
    ) -> Result<Response<RemoveUserResponse>, Status> {
        let admin = self.authenticate_admin(&request, "remove user", &request.get_ref().username).await?;
        let name = request.into_inner().username;
        let removed = self.users_for(&admin).remove(&name).await;
        admin.audit_event("remove user", Some(&name)).outcome(removed)?;
        Ok(Response::new(RemoveUserResponse {}))
    }

    async fn list_users(
        &self,
        request: Request<ListUsersRequest>,
    ) -> Result<Response<ListUsersResponse>, Status> {
        self.authenticate_admin(&request, "list users", "-").await?;
        let ListUsersRequest { page_size, page_token } = request.into_inner();
        let size = paging::page_size(page_size)?;
        if page_token.contains('\0') {
            return Err(invalid("page_token", "page_token is not one of a page before").into());
        }
        // One more shows whether this is the last page.
        let mut users = self.users.page(&page_token, size + 1).await.map_err(Error::from)?;
        let last = pages::truncate(&mut users, size);
        let next_page_token = last.map(|user| user.name.clone()).unwrap_or_default();
        let users = users.into_iter().map(Into::into).collect();
        Ok(Response::new(ListUsersResponse { users, next_page_token }))
    }

    async fn get_user(&self, request: Request<GetUserRequest>) -> Result<Response<GetUserResponse>, Status> {
        let session = self.tokens.authenticate(&request, Some(TokenKind::Access)).await?;
        let name = self.named_or_own(&session, request.into_inner().username).await?;
        if name != session.user.username {
            session.require_admin()?;
        }
        let user = self.users.get(&name).await.map_err(Error::from)?;
        Ok(Response::new(GetUserResponse { user: Some(user.into()) }))
    }

    async fn set_disabled(
        &self,
        request: Request<SetDisabledRequest>,
    ) -> Result<Response<SetDisabledResponse>, Status> {
        let action = if request.get_ref().disabled { "disable user" } else { "enable user" };
        let admin = self.authenticate_admin(&request, action, &request.get_ref().username).await?;
        let SetDisabledRequest { username, disabled } = request.into_inner();
        let changed = self.users_for(&admin).set_disabled(&username, disabled).await;
        let user = admin.audit_event(action, Some(&username)).outcome(changed)?;
        Ok(Response::new(SetDisabledResponse { user: Some(user.into()) }))
    }

    async fn set_role(&self, request: Request<SetRoleRequest>) -> Result<Response<SetRoleResponse>, Status> {
        let admin = self.authenticate_admin(&request, "set role", &request.get_ref().username).await?;
        let request = request.into_inner();
        let role = role(request.role)?;
        let action = if role == Role::Admin { "make admin" } else { "make user" };
        let changed = self.users_for(&admin).set_role(&request.username, role).await;
        let user = admin.audit_event(action, Some(&request.username)).outcome(changed)?;
        Ok(Response::new(SetRoleResponse { user: Some(user.into()) }))
    }

    async fn set_quota(
        &self,
        request: Request<SetQuotaRequest>,
    ) -> Result<Response<SetQuotaResponse>, Status> {
        let admin = self.authenticate_admin(&request, "set quota", &request.get_ref().username).await?;
        let SetQuotaRequest { username, quota } = request.into_inner();
        let quota = quota.map_or(Ok(Quota::NONE), Quota::try_from).map_err(Error::from)?;
        let action = format!("set quota {quota}");
        let changed = self.users_for(&admin).set_quota(&username, quota).await;
        let user = admin.audit_event(&action, Some(&username)).outcome(changed)?;
        Ok(Response::new(SetQuotaResponse { user: Some(user.into()) }))
    }

    async fn set_password(
        &self,
        request: Request<SetPasswordRequest>,
    ) -> Result<Response<SetPasswordResponse>, Status> {
        let session = self.tokens.authenticate(&request, Some(TokenKind::Access)).await?;
        let user = self.set_password(&session, request.into_inner()).await?;
        Ok(Response::new(SetPasswordResponse { user: Some(user.into()) }))
    }
}
