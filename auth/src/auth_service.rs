//! `muse.v1.AuthService`.

use std::sync::Arc;

use muse_proto::{
    Error, Reason,
    v1::{
        GetJwksRequest, GetJwksResponse, JsonWebKey, LoginRequest, LoginResponse, RefreshTokenRequest,
        RefreshTokenResponse, RevokeTokenRequest, RevokeTokenResponse, auth_service_server,
    },
};
use muse_verifier::{Claims, TokenKind, Verifier};
use secrecy::SecretString;
use tonic::{Request, Response, Status};

use crate::{
    error::internal,
    passwords::{self, Checker},
    revocation_service::News,
    store::Store,
    tokens::Signer,
    users::is_name,
};

/// Answers logins and what holders of tokens ask for.
#[derive(Clone)]
pub(crate) struct AuthService {
    pub(crate) store: Store,
    pub(crate) passwords: Checker,
    pub(crate) signer: Arc<Signer>,
    pub(crate) verifier: Verifier,
    pub(crate) public_keys: Vec<JsonWebKey>,
    pub(crate) news: News,
}

impl AuthService {
    async fn log_in(&self, request: LoginRequest) -> Result<LoginResponse, Error> {
        let bad_credentials = || Error::new(Reason::BadCredentials, "Unauthorized");
        // No user has such a name or such a password, so there is nothing to hide by taking one's time.
        if !is_name(&request.username) || !(1..=passwords::LONGEST).contains(&request.password.len()) {
            return Err(bad_credentials());
        }
        let hash = self.store.password_hash(&request.username).await.map_err(internal)?;
        if !self.passwords.check(SecretString::from(request.password), hash).await? {
            return Err(bad_credentials());
        }
        Ok(LoginResponse {
            access_token: self.sign(&request.username, TokenKind::Access, true)?,
            refresh_token: self.sign(&request.username, TokenKind::Refresh, true)?,
            access_token_expires_in: self.signer.access_lifetime.as_secs(),
            refresh_token_expires_in: self.signer.refresh_lifetime.as_secs(),
        })
    }

    async fn refresh(&self, claims: Claims) -> Result<RefreshTokenResponse, Error> {
        let user_exists = self.store.password_hash(&claims.sub).await.map_err(internal)?.is_some();
        if !user_exists {
            return Err(revoked());
        }
        Ok(RefreshTokenResponse {
            access_token: self.sign(&claims.sub, TokenKind::Access, false)?,
            access_token_expires_in: self.signer.access_lifetime.as_secs(),
        })
    }

    /// The order matters: what is answered is on disk, and refused here, and on its way to the others.
    async fn revoke(&self, claims: Claims) -> Result<RevokeTokenResponse, Error> {
        let first = self.store.revoke(&claims.jti, claims.exp).await.map_err(internal)?;
        self.verifier.revoke(&claims.jti, claims.exp);
        self.news.announce();
        if first { Ok(RevokeTokenResponse {}) } else { Err(revoked()) }
    }

    fn sign(&self, user: &str, kind: TokenKind, fresh: bool) -> Result<String, Error> {
        self.signer.sign(user, kind, fresh).map_err(internal)
    }

    fn authorize<T>(&self, request: &Request<T>, kind: Option<TokenKind>) -> Result<Claims, Error> {
        self.verifier.authorize(request.metadata().as_ref(), kind)
    }
}

#[tonic::async_trait]
impl auth_service_server::AuthService for AuthService {
    async fn login(&self, request: Request<LoginRequest>) -> Result<Response<LoginResponse>, Status> {
        Ok(Response::new(self.log_in(request.into_inner()).await?))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let claims = self.authorize(&request, Some(TokenKind::Refresh))?;
        Ok(Response::new(self.refresh(claims).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<RevokeTokenResponse>, Status> {
        let claims = self.authorize(&request, None)?;
        let service = self.clone();
        // In a task of its own, so that a caller who hangs up cannot stop it between the steps.
        let revoked = tokio::spawn(async move { service.revoke(claims).await });
        Ok(Response::new(revoked.await.unwrap_or_else(|failure| Err(internal(failure)))?))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<GetJwksResponse>, Status> {
        Ok(Response::new(GetJwksResponse { keys: self.public_keys.clone() }))
    }
}

fn revoked() -> Error {
    Error::new(Reason::TokenRevoked, "Token has been revoked")
}
