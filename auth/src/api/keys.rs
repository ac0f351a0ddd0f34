//! `muse.v1.KeyService`.

use std::time::Duration;

use muse_proto::{
    Error,
    v1::{
        CreateKeyRequest, CreateKeyResponse, DeleteKeyRequest, DeleteKeyResponse, DescribeKeyRequest,
        DescribeKeyResponse, GetKeyRequest, GetKeyResponse, ListKeysRequest, ListKeysResponse,
        UpdateKeyRequest, UpdateKeyResponse, key_service_server,
    },
};
use muse_telemetry::request_telemetry::{Caller, RequestContext};
use muse_verifier::{TokenKind, api_keys::is_api_key, bearer, token_not_accepted};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use crate::{
    AuthError,
    api_keys::{ApiKey, ApiKeyChange, ApiKeys, NewApiKey},
    audit::AuditEvent,
    authentication::{Session, TokenAuthenticator},
};

use super::users::{page_size, require_admin};

/// How long the response with a new key waits, so that verifiers know the key before its owner does.
/// They receive it within milliseconds.
const PROPAGATION_DELAY: Duration = Duration::from_millis(100);

/// Manages API keys.
#[derive(Clone)]
pub(crate) struct KeyService {
    pub(crate) tokens: TokenAuthenticator,
    pub(crate) keys: ApiKeys,
}

impl KeyService {
    async fn authenticate<T>(&self, request: &Request<T>) -> Result<Session, Error> {
        self.tokens.authenticate(request, Some(TokenKind::Access)).await
    }
}

/// The user whose keys a request is about: the caller, or for admins the named user.
fn owner<'a>(session: &'a Session, named: &'a str) -> Result<&'a str, Error> {
    let own = &session.user.username;
    if named.is_empty() || named == own {
        return Ok(own);
    }
    require_admin(session)?;
    Ok(named)
}

/// The owner whose keys the caller may manage; `None` for all.
fn managed_owner(session: &Session) -> Option<&str> {
    require_admin(session).is_err().then_some(session.user.username.as_str())
}

/// Writes the outcome to the audit log. The id of a key is not a secret.
fn log_outcome<T>(
    session: &Session,
    action: &str,
    outcome: Result<T, AuthError>,
    key_of: impl Fn(&T) -> &ApiKey,
) -> Result<T, Error> {
    let event = |action: &str, user: Option<&str>, outcome: Result<(), &str>| {
        let event = AuditEvent { action, by: Some(&session.user.username), user, from: Some(session.from) };
        match outcome {
            Ok(()) => event.granted(),
            Err(reason) => event.rejected(reason),
        }
    };
    match outcome {
        Ok(done) => {
            let key = key_of(&done);
            event(&format!("{action} {}", key.id), Some(&key.owner), Ok(()));
            Ok(done)
        }
        Err(failure) => {
            let error = Error::from(failure);
            event(action, None, Err(error.reason().as_str()));
            Err(error)
        }
    }
}

#[tonic::async_trait]
impl key_service_server::KeyService for KeyService {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let CreateKeyRequest { name, expires_in, bulk, username } = request.into_inner();
        let owner = owner(&session, &username)?;
        let created_by = Some(session.user.username.as_str());
        let new = NewApiKey { name: &name, owner, created_by, expires_in, bulk };
        let created = self.keys.create_as(new, Some(&session.claims)).await;
        let (key, secret_key) = log_outcome(&session, "create API key", created, |(key, _)| key)?;
        tokio::time::sleep(PROPAGATION_DELAY).await;
        let secret_key = secret_key.expose_secret().to_owned();
        Ok(Response::new(CreateKeyResponse { key: Some(key.into()), secret_key }))
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let ListKeysRequest { page_size: size, page_token, username, all_users } = request.into_inner();
        let limit = page_size(size)?;
        let owner = if all_users {
            require_admin(&session)?;
            None
        } else {
            Some(owner(&session, &username)?)
        };
        let (keys, next) = self.keys.page(owner, &page_token, limit).await.map_err(Error::from)?;
        let keys = keys.into_iter().map(Into::into).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let key = self.keys.get(&request.get_ref().id, managed_owner(&session)).await.map_err(Error::from)?;
        Ok(Response::new(GetKeyResponse { key: Some(key.into()) }))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let UpdateKeyRequest { id, name, disabled, expires_in, bulk } = request.into_inner();
        let change = ApiKeyChange { name, disabled, expires_in, bulk };
        let changed = self.keys.update(&id, Some(&session.claims), change).await;
        let key = log_outcome(&session, "update API key", changed, |key| key)?;
        Ok(Response::new(UpdateKeyResponse { key: Some(key.into()) }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let deleted = self.keys.delete(&request.get_ref().id, Some(&session.claims)).await;
        log_outcome(&session, "delete API key", deleted, |key| key)?;
        Ok(Response::new(DeleteKeyResponse {}))
    }

    async fn describe_key(
        &self,
        request: Request<DescribeKeyRequest>,
    ) -> Result<Response<DescribeKeyResponse>, Status> {
        let authorization = bearer::authorization(request.metadata().as_ref());
        let credential = bearer::token(authorization.as_deref())?;
        if !is_api_key(credential) {
            return Err(token_not_accepted().into());
        }
        let key = self.keys.authenticate(credential).await?;
        RequestContext::record_caller(request.extensions(), Caller::User, &key.owner);
        Ok(Response::new(DescribeKeyResponse { key: Some(key.into()) }))
    }
}
