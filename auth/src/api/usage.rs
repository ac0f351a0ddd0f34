//! `muse.v1.UsageService`.

use muse_proto::{
    Error,
    v1::{self, ListUsageRequest, ListUsageResponse, UsageGrouping as GroupingMessage, usage_service_server},
};
use muse_telemetry::request_telemetry::{Caller, RequestContext};
use muse_verifier::{
    TokenKind,
    api_keys::{KeyId, is_api_key},
    bearer, key_not_accepted,
};
use tonic::{Request, Response, Status};

use crate::{
    ApiKeys,
    authentication::TokenAuthenticator,
    error::invalid,
    usage::{Usage, UsageGrouping, UsageQuery, UsageRow},
};

use super::paging::page_size;

/// Lists usage.
#[derive(Clone)]
pub(crate) struct UsageService {
    pub(crate) tokens: TokenAuthenticator,
    pub(crate) keys: ApiKeys,
    pub(crate) usage: Usage,
}

/// Whose usage a call may list.
struct Scope {
    /// `None` for all users.
    username: Option<String>,
    /// `None` for all API keys and calls with tokens.
    key_id: Option<KeyId>,
}

impl UsageService {
    async fn scope(&self, request: &Request<ListUsageRequest>) -> Result<Scope, Error> {
        let ListUsageRequest { username, key_id, .. } = request.get_ref();
        let authorization = bearer::authorization(request.metadata().as_ref());
        let credential = bearer::token(authorization.as_deref())?;
        let requested_key = match key_id.as_str() {
            "" => None,
            id => Some(key_id_of(id)?),
        };
        if is_api_key(credential) {
            let key = self.keys.authenticate(credential).await?;
            RequestContext::record_caller(request.extensions(), Caller::User, &key.owner);
            let is_own = requested_key.is_none_or(|id| id == key.id)
                && (username.is_empty() || *username == key.owner);
            // A key has fewer rights than its owner.
            let scope = Scope { username: Some(key.owner), key_id: Some(key.id) };
            return if is_own { Ok(scope) } else { Err(key_not_accepted()) };
        }
        let session = self.tokens.authenticate(request, Some(TokenKind::Access)).await?;
        let own = &session.user.username;
        let named = Some(username.clone()).filter(|name| !name.is_empty());
        let username = match session.require_admin() {
            Ok(()) => named,
            Err(denied) if named.as_ref().is_some_and(|name| name != own) => {
                session.audit_event("list usage", named.as_deref()).rejected("not an admin");
                return Err(denied);
            }
            Err(_) => Some(own.clone()),
        };
        Ok(Scope { username, key_id: requested_key })
    }
}

/// The id of a key. The number 0 is no key's: it stands for calls with tokens.
fn key_id_of(text: &str) -> Result<KeyId, Error> {
    let id = text.parse::<KeyId>().ok().filter(|id| id.number() != 0);
    id.ok_or_else(|| invalid("key_id", "key_id: it is not an id of a key"))
}

fn grouping(number: i32) -> Result<UsageGrouping, Error> {
    match GroupingMessage::try_from(number) {
        Ok(GroupingMessage::Unspecified) => Ok(UsageGrouping::All),
        Ok(GroupingMessage::Day) => Ok(UsageGrouping::Day),
        Ok(GroupingMessage::User) => Ok(UsageGrouping::User),
        Ok(GroupingMessage::Key) => Ok(UsageGrouping::Key),
        Ok(GroupingMessage::Hour) => Ok(UsageGrouping::Hour),
        Err(_) => Err(invalid("grouping", format!("grouping: {number} is not a grouping"))),
    }
}

fn message(row: UsageRow) -> v1::UsageRow {
    v1::UsageRow {
        start: row.start.unwrap_or_default(),
        username: row.username.unwrap_or_default(),
        key_id: row.key_id.map(|id| id.to_string()).unwrap_or_default(),
        requests: row.requests,
        sentences: row.sentences,
        tokens: row.tokens,
        refused: row.refused,
    }
}

#[tonic::async_trait]
impl usage_service_server::UsageService for UsageService {
    async fn list_usage(
        &self,
        request: Request<ListUsageRequest>,
    ) -> Result<Response<ListUsageResponse>, Status> {
        let Scope { username, key_id } = self.scope(&request).await?;
        let request = request.into_inner();
        let query = UsageQuery {
            from: request.from,
            to: request.to,
            grouping: grouping(request.grouping)?,
            username: username.as_deref(),
            key_id,
        };
        let limit = page_size(request.page_size)?;
        let (rows, next) = self.usage.page(query, &request.page_token, limit).await.map_err(Error::from)?;
        let usage = rows.into_iter().map(message).collect();
        Ok(Response::new(ListUsageResponse { usage, next_page_token: next.unwrap_or_default() }))
    }
}
