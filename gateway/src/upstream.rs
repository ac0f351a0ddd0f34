//! The services behind the gateway.

use std::time::Duration;

use muse_proto::{
    Error, Reason,
    v1::{auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient},
};
use muse_verifier::{Claims, TokenKind, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::Config;

/// Channels to the services, which connect when they are first used and again after a break, and the verifier that
/// follows the auth service.
#[derive(Debug, Clone)]
pub(crate) struct Upstream {
    pub(crate) auth: Channel,
    pub(crate) embedder: Channel,
    pub(crate) verifier: Verifier,
}

impl Upstream {
    pub(crate) fn connect(config: &Config, shutdown: CancellationToken) -> Self {
        let (verifier, auth) = config.auth.follow(shutdown);
        Self { auth, embedder: config.embedder.connect_lazy(), verifier }
    }

    pub(crate) fn auth_client(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(self.auth.clone())
    }

    pub(crate) fn embedder_client(&self) -> EmbedderServiceClient<Channel> {
        // The embedder bounds its answers by the limits of a request.
        EmbedderServiceClient::new(self.embedder.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }
    /// Refuses a token that the auth service has just revoked. It tells every verifier; this one need not wait to hear
    /// it.
    pub(crate) fn revoked(&self, claims: &Claims) {
        let id = match claims.kind {
            TokenKind::Access => &claims.jti,
            TokenKind::Refresh => claims.family_id(),
        };
        self.verifier.revoke(id, claims.exp);
    }
}

/// The error of a call that does not get to the service behind, or gets no answer from there.
pub(crate) fn out_of_reach() -> Error {
    Error::new(Reason::Unavailable, "the service behind the gateway cannot be reached")
        .with_retry_after(Duration::from_secs(1))
}
