//! The services behind the gateway: the auth service and the embedders.

use std::{error::Error as _, ops::Deref, sync::Arc, time::Duration};

use muse_balancer::Balancer;
use muse_proto::{
    Error, Reason,
    v1::{
        auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient,
        key_service_client::KeyServiceClient, usage_service_client::UsageServiceClient,
        user_service_client::UserServiceClient,
    },
};
use muse_server::{memory_budget::MemoryBudget, tls::Connector};
use muse_telemetry::request_telemetry::TracedClient;
use muse_verifier::{Claims, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, error};

use crate::{Config, Resolver, api::openai::models::ModelCache};

/// Memory of the requests of all callers in the gateway, in bytes. One caller may reserve half of it, which is enough for two of the
/// largest requests.
const REQUEST_MEMORY: usize = 64 << 20;
/// The same for the vectors and tokens of responses.
const RESPONSE_MEMORY: usize = 96 << 20;
/// Bytes of the largest request or response for which no memory is reserved.
const UNRESERVED_BYTES: usize = 64 << 10;

/// A handle on the services behind the gateway. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(Arc<Services>);

impl Deref for Upstream {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// See [`Upstream`].
#[derive(Debug)]
pub(crate) struct Services {
    /// The channel to the auth service, which connects when it is first used, and reconnects.
    pub(crate) auth: TracedClient<Channel>,
    pub(crate) embedder: Balancer,
    pub(crate) verifier: Verifier,
    pub(crate) shutdown: CancellationToken,
    /// Timeout of a call to an embedder; the same for reading its message.
    pub(crate) call_timeout: Duration,
    /// For a request's body, from its first byte until it has been sent to a service.
    pub(crate) request_memory: MemoryBudget,
    /// For a response, from before its call until its last byte has been sent to the caller.
    pub(crate) response_memory: MemoryBudget,
    pub(crate) model: ModelCache,
}

impl Upstream {
    pub(crate) fn connect(
        config: &Config,
        resolver: Box<dyn Resolver>,
        connector: &Connector,
        shutdown: CancellationToken,
    ) -> Self {
        let (verifier, auth) = config.auth.clone().follow(connector, shutdown.clone());
        let embedder = Balancer::follow(
            &config.embedders,
            resolver,
            connector,
            config.model_fingerprint.clone(),
            config.call_timeout,
            shutdown.clone(),
        );
        let [request_memory, response_memory] = [REQUEST_MEMORY, RESPONSE_MEMORY]
            .map(|total| MemoryBudget::new(total, UNRESERVED_BYTES, config.call_timeout));
        Self(Arc::new(Services {
            auth: TracedClient(auth),
            embedder,
            verifier,
            shutdown,
            call_timeout: config.call_timeout,
            request_memory,
            response_memory,
            model: ModelCache::default(),
        }))
    }

    pub(crate) fn auth_client(&self) -> AuthServiceClient<TracedClient<Channel>> {
        AuthServiceClient::new(self.auth.clone())
    }

    pub(crate) fn key_client(&self) -> KeyServiceClient<TracedClient<Channel>> {
        KeyServiceClient::new(self.auth.clone())
    }

    pub(crate) fn user_client(&self) -> UserServiceClient<TracedClient<Channel>> {
        UserServiceClient::new(self.auth.clone())
    }

    pub(crate) fn usage_client(&self) -> UsageServiceClient<TracedClient<Channel>> {
        UsageServiceClient::new(self.auth.clone())
    }

    pub(crate) fn embedder_client(&self) -> EmbedderServiceClient<Balancer> {
        // The limits of requests bound the responses of the embedder.
        EmbedderServiceClient::new(self.embedder.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Rejects a token from now on that the auth service has just revoked, before the auth service publishes that to all verifiers.
    pub(crate) fn revoke(&self, claims: &Claims) {
        self.verifier.revoke(claims.revocation_id(), claims.exp);
    }
}

/// The error of a failed call.
pub(crate) fn failure(status: &Status) -> Error {
    // A status with a cause does not come from the service: there was no response.
    if status.source().is_some() {
        debug!(%status, "a call gets no response");
        return unreachable();
    }
    let error = Error::from(status);
    if error.reason() == Reason::Internal {
        error!(%status, "a service behind the gateway failed");
    }
    error
}

/// The error of a call that gets no response.
pub(crate) fn unreachable() -> Error {
    Error::new(Reason::Unavailable, "the service behind the gateway cannot be reached")
        .with_retry_after(Duration::from_secs(1))
}
