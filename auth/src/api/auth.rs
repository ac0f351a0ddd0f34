//! `muse.v1.AuthService`.

use std::sync::Arc;

use muse_proto::{
    Error,
    v1::{
        GetJwksRequest, GetJwksResponse, LoginRequest, LoginResponse, RefreshTokenRequest,
        RefreshTokenResponse, RevokeTokenRequest, RevokeTokenResponse, RevokeUserTokensRequest,
        RevokeUserTokensResponse, auth_service_server,
    },
};
use muse_verifier::TokenKind;
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use crate::{
    authentication::{PasswordAuthenticator, Session, TokenAuthenticator, client_address, token_revoked},
    clock,
    config::RefreshRotation,
    error::{database_failed, internal},
    store::{Permission, RefreshExchange, RefreshTokenUse, UserRow},
    tokens::{Grant, SignedToken, TokenSigner},
    users::Users,
};

/// Issues, refreshes and revokes tokens.
#[derive(Clone)]
pub(crate) struct AuthService {
    pub(crate) passwords: PasswordAuthenticator,
    pub(crate) tokens: TokenAuthenticator,
    pub(crate) users: Users,
    pub(crate) signer: Arc<TokenSigner>,
    pub(crate) refresh_rotation: Option<RefreshRotation>,
}

impl AuthService {
    /// The access token and the refresh token of a login.
    fn token_pair(&self, user: &UserRow) -> Result<LoginResponse, Error> {
        let grant = Grant::new(user, true);
        let refresh = self.sign(TokenKind::Refresh, grant.clone())?;
        // With rotation, reuse of a refresh token revokes the family, so the access token belongs
        // to it.
        let family = self.refresh_rotation.map(|_| refresh.claims.jti.clone());
        let access = self.sign(TokenKind::Access, Grant { family, ..grant })?;
        Ok(LoginResponse {
            access_token: access.text,
            refresh_token: refresh.text,
            access_token_expires_in: self.signer.access_lifetime.as_secs(),
            refresh_token_expires_in: self.signer.refresh_lifetime.as_secs(),
        })
    }

    async fn refresh(&self, session: &Session) -> Result<RefreshTokenResponse, Error> {
        let user = &session.user;
        let grant = Grant::new(user, false);
        let Some(rotation) = self.refresh_rotation else {
            return Ok(RefreshTokenResponse {
                access_token: self.sign(TokenKind::Access, grant)?.text,
                access_token_expires_in: self.signer.access_lifetime.as_secs(),
                ..Default::default()
            });
        };
        self.exchange(session, rotation).await?;
        let grant = Grant { family: Some(session.claims.family_id().to_owned()), ..grant };
        Ok(RefreshTokenResponse {
            access_token: self.sign(TokenKind::Access, grant.clone())?.text,
            access_token_expires_in: self.signer.access_lifetime.as_secs(),
            refresh_token: self.sign(TokenKind::Refresh, grant)?.text,
            refresh_token_expires_in: self.signer.refresh_lifetime.as_secs(),
        })
    }

    /// Ends the refresh token of a session, so that a new one can be issued.
    async fn exchange(&self, session: &Session, rotation: RefreshRotation) -> Result<(), Error> {
        let claims = &session.claims;
        let now = clock::now();
        let grace = i64::try_from(rotation.grace.as_secs()).unwrap_or(i64::MAX);
        let exchanged = self.tokens.store.exchange_refresh_token(RefreshTokenUse {
            jti: &claims.jti,
            family: claims.family_id(),
            now,
            grace,
            expires_at: claims.exp,
            family_expires_at: self.signer.family_end(now),
        });
        if exchanged.await.map_err(database_failed)? == RefreshExchange::Reused {
            let event = session.audit_event("refresh", None);
            event.rejected("an ended refresh token was used: all tokens of its login are revoked");
            return Err(token_revoked());
        }
        Ok(())
    }

    /// Revokes the token of a session. When this returns, the revocation is on disk and is being
    /// sent to the verifiers.
    async fn revoke(&self, session: &Session) -> Result<RevokeTokenResponse, Error> {
        let claims = &session.claims;
        // Later tokens of a family expire later than this one.
        let family_end = self.signer.family_end(clock::now());
        let expires_at = if claims.family.is_some() { claims.exp.max(family_end) } else { claims.exp };
        let is_new =
            self.tokens.store.revoke(claims.revocation_id(), expires_at).await.map_err(database_failed)?;
        if !is_new {
            return Err(token_revoked());
        }
        session.audit_event("log out", None).granted();
        Ok(RevokeTokenResponse {})
    }

    async fn revoke_user(
        &self,
        session: &Session,
        request: RevokeUserTokensRequest,
    ) -> Result<RevokeUserTokensResponse, Error> {
        let own = &session.user.username;
        let name = match request.username.as_str() {
            "" => own.clone(),
            named => self.users.stored_name(named).await?,
        };
        let event = session.audit_event("revoke all tokens", Some(&name));
        if name != *own {
            session.require_admin().inspect_err(|_| event.rejected("not an admin"))?;
        }
        let users = self.users.on_behalf_of(&session.claims, Permission::AdminOrSelf);
        event.outcome(users.revoke_tokens(&name, request.delete_keys).await)?;
        Ok(RevokeUserTokensResponse {})
    }

    fn sign(&self, kind: TokenKind, grant: Grant<'_>) -> Result<SignedToken, Error> {
        self.signer.sign(kind, grant).map_err(internal)
    }
}

#[tonic::async_trait]
impl auth_service_server::AuthService for AuthService {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        let from = client_address(&request);
        let LoginRequest { username, password } = request.into_inner();
        let user = self.passwords.log_in(username, SecretString::from(password), from).await?;
        Ok(Response::new(self.token_pair(&user)?))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let session = self.tokens.authenticate(&request, Some(TokenKind::Refresh)).await?;
        Ok(Response::new(self.refresh(&session).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let session = self.tokens.authenticate(&request, None).await?;
        Ok(Response::new(self.revoke(&session).await?))
    }

    async fn revoke_user_tokens(
        &self,
        request: Request<RevokeUserTokensRequest>,
    ) -> Result<Response<RevokeUserTokensResponse>, Status> {
        let session = self.tokens.authenticate(&request, Some(TokenKind::Access)).await?;
        Ok(Response::new(self.revoke_user(&session, request.into_inner()).await?))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        let keys = self.tokens.keys.borrow().published(clock::now());
        Ok(Response::new(GetJwksResponse { keys }))
    }
}
