//! The services behind the gateway.

use std::{error::Error as _, ops::Deref, sync::Arc, time::Duration};

use muse_balancer::Balancer;
use muse_proto::{
    Error, Reason,
    v1::{auth_service_client::AuthServiceClient, embedder_service_client::EmbedderServiceClient},
};
use muse_server::{memory_budget::MemoryBudget, tls::Connector};
use muse_telemetry::request_telemetry::TracedClient;
use muse_verifier::{Claims, Verifier};
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{debug, error};

use crate::{Config, Resolver, api::openai::models::ModelCache};

/// Bytes that the requests of all callers hold in the gateway. Two of the largest fit into half of it, which one caller may have.
const REQUEST_MEMORY: usize = 64 << 20;
/// The same for the vectors and tokens of responses that are being sent.
const RESPONSE_MEMORY: usize = 96 << 20;
/// Bytes of a request or a response for which nothing is reserved.
const SMALL: usize = 64 << 10;

/// The auth service, to which a channel connects when it is first used and again after a break, the embedders, and the
/// verifier that follows the auth service.
/// Clones are handles on the same.
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
    pub(crate) auth: TracedClient<Channel>,
    pub(crate) embedder: Balancer,
    pub(crate) verifier: Verifier,
    pub(crate) shutdown: CancellationToken,
    /// For a call to an embedder, the time to read its message included.
    pub(crate) call_timeout: Duration,
    /// Reserved for a request's body from its first byte until it has been sent to a service.
    pub(crate) request_memory: MemoryBudget,
    /// Reserved for a response before its call is made until its last byte has been sent to the caller.
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
        let embedder =
            Balancer::follow(&config.embedders, (resolver, connector), config.call_timeout, shutdown.clone());
        let [request_memory, response_memory] = [REQUEST_MEMORY, RESPONSE_MEMORY]
            .map(|total| MemoryBudget::new(total, SMALL, config.call_timeout));
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

    pub(crate) fn embedder_client(&self) -> EmbedderServiceClient<Balancer> {
        // The embedder bounds its answers by the limits of a request.
        EmbedderServiceClient::new(self.embedder.clone())
            .max_decoding_message_size(usize::MAX)
            .max_encoding_message_size(usize::MAX)
    }

    /// Refuses a token that the auth service has just revoked. It tells every verifier; this one need not wait to hear
    /// it.
    pub(crate) fn revoked(&self, claims: &Claims) {
        self.verifier.revoke(claims.revocation_id(), claims.exp);
    }
}

/// The error that a call has ended with.
pub(crate) fn failure(status: &Status) -> Error {
    // With a cause the status is not the service's answer, but tells why there is none.
    if status.source().is_some() {
        debug!(%status, "a call gets no answer");
        return out_of_reach();
    }
    let error = Error::from(status);
    if error.reason() == Reason::Internal {
        error!(%status, "a service behind the gateway failed");
    }
    error
}

/// The error of a call that does not get to the service behind, or gets no answer from there.
pub(crate) fn out_of_reach() -> Error {
    Error::new(Reason::Unavailable, "the service behind the gateway cannot be reached")
        .with_retry_after(Duration::from_secs(1))
}
