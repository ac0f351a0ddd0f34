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
use muse_verifier::{
    TokenKind,
    api_keys::{KeyId, is_api_key},
    bearer, token_not_accepted,
};
use secrecy::ExposeSecret;
use tonic::{Request, Response, Status};

use crate::{
    AuthError, Quota,
    api_keys::{ApiKey, ApiKeyChange, ApiKeys, NewApiKey},
    authentication::{Session, TokenAuthenticator},
};

use super::paging::page_size;

/// How long the response with a new key waits, so that verifiers know the key before its owner
/// does. They receive it within milliseconds.
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

    /// The keys, for changes that the caller requests.
    fn keys_for(&self, session: &Session) -> ApiKeys {
        self.keys.on_behalf_of(&session.claims)
    }
}

/// The user whose keys a request is about: the caller, or for admins the named user.
fn owner<'a>(session: &'a Session, named: &'a str, action: &str) -> Result<&'a str, Error> {
    let own = &session.user.username;
    if named.is_empty() || named == own {
        return Ok(own);
    }
    session
        .require_admin()
        .inspect_err(|_| session.audit_event(action, Some(named)).rejected("not an admin"))?;
    Ok(named)
}

/// The owner whose keys the caller may manage; `None` for all.
fn managed_owner(session: &Session) -> Option<&str> {
    session.require_admin().is_err().then_some(session.user.username.as_str())
}

/// The action with the id of its key, unless the id is none: it may be a key.
fn action_on(action: &str, id: &str) -> String {
    id.parse::<KeyId>().map_or_else(|_| action.to_owned(), |id| format!("{action} {id}"))
}

/// Writes the outcome to the audit log. The id of a key is not a secret.
fn log_outcome<T>(
    session: &Session,
    action: &str,
    outcome: Result<T, AuthError>,
    key_of: impl Fn(&T) -> &ApiKey,
) -> Result<T, Error> {
    let done = outcome.map_err(|failure| session.audit_event(action, None).failed(failure))?;
    session.audit_event(action, Some(&key_of(&done).owner)).granted();
    Ok(done)
}

#[tonic::async_trait]
impl key_service_server::KeyService for KeyService {
    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let CreateKeyRequest { name, expires_in, bulk, username, quota } = request.into_inner();
        let owner = owner(&session, &username, "create API key")?;
        let quota = quota.map_or(Ok(Quota::NONE), Quota::try_from).map_err(Error::from)?;
        let new = NewApiKey { name: &name, owner, expires_in, bulk, quota };
        let created = self.keys_for(&session).create(new).await;
        let action = match &created {
            Ok((key, _)) => format!("create API key {}", key.id),
            Err(_) => "create API key".to_owned(),
        };
        let (key, secret_key) = log_outcome(&session, &action, created, |(key, _)| key)?;
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
            let event = session.audit_event("list API keys of all users", None);
            session.require_admin().inspect_err(|_| event.rejected("not an admin"))?;
            None
        } else {
            Some(owner(&session, &username, "list API keys")?)
        };
        let (keys, next) = self.keys.page(owner, &page_token, limit).await.map_err(Error::from)?;
        let keys = keys.into_iter().map(Into::into).collect();
        Ok(Response::new(ListKeysResponse { keys, next_page_token: next.unwrap_or_default() }))
    }

    async fn get_key(&self, request: Request<GetKeyRequest>) -> Result<Response<GetKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let id = &request.get_ref().id;
        let found = self.keys.get(id, managed_owner(&session)).await;
        // Only rejections are logged, as of other calls that read.
        let key = found
            .map_err(|failure| session.audit_event(&action_on("get API key", id), None).failed(failure))?;
        Ok(Response::new(GetKeyResponse { key: Some(key.into()) }))
    }

    async fn update_key(
        &self,
        request: Request<UpdateKeyRequest>,
    ) -> Result<Response<UpdateKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let UpdateKeyRequest { id, name, disabled, expires_in, bulk, quota } = request.into_inner();
        let quota = quota.map(Quota::try_from).transpose().map_err(Error::from)?;
        let mut action = action_on("update API key", &id);
        if name.is_some() {
            action.push_str(" name");
        }
        for (property, value) in [
            ("disabled", disabled.map(|value| value.to_string())),
            ("expires_in", expires_in.map(|value| value.to_string())),
            ("bulk", bulk.map(|value| value.to_string())),
            ("quota", quota.map(|quota| quota.to_string())),
        ] {
            if let Some(value) = value {
                action.push_str(&format!(" {property}={value}"));
            }
        }
        let change = ApiKeyChange { name, disabled, expires_in, bulk, quota };
        let changed = self.keys_for(&session).update(&id, change).await;
        let key = log_outcome(&session, &action, changed, |key| key)?;
        Ok(Response::new(UpdateKeyResponse { key: Some(key.into()) }))
    }

    async fn delete_key(
        &self,
        request: Request<DeleteKeyRequest>,
    ) -> Result<Response<DeleteKeyResponse>, Status> {
        let session = self.authenticate(&request).await?;
        let deleted = self.keys_for(&session).delete(&request.get_ref().id).await;
        log_outcome(&session, &action_on("delete API key", &request.get_ref().id), deleted, |key| key)?;
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
