//! The services behind the gateway.

use muse_proto::v1::{
    auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient,
};
use muse_verifier::Verifier;
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
        let auth = config.auth.connect_lazy();
        let verifier = Verifier::new();
        // Its only outcome is the verifier's state; it ends with the shutdown.
        drop(verifier.follow(auth.clone(), shutdown));
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
}
