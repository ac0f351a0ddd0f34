//! The options of a service that checks tokens.

use std::time::Duration;

use muse_server::{grpc, tls::Connector};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::Verifier;

/// Where the auth service is, and how long it may be away.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// URL of the auth service.
    #[arg(long = "auth", env = "AUTH_URL", default_value = "http://127.0.0.1:5001", value_parser = grpc::endpoint)]
    pub endpoint: Endpoint,

    /// Seconds for which tokens are accepted while the auth service is out of reach.
    #[arg(long, env = "AUTH_MAX_STALENESS", default_value = "300", value_parser = seconds)]
    pub max_staleness: Duration,
}

impl AuthArgs {
    /// A verifier that follows that auth service until `shutdown`, and a channel to it for the
    /// calls of users, which connects when it is first used and again after a break.
    ///
    /// The verifier has a connection of its own, so that no call of a user can end the stream of
    /// revocations.
    #[must_use]
    pub fn follow(&self, connector: &Connector, shutdown: CancellationToken) -> (Verifier, Channel) {
        let verifier = Verifier::new(self.max_staleness);
        // Its only outcome is the verifier's state; it ends with the shutdown.
        drop(verifier.follow(grpc::channel(&self.endpoint, connector), shutdown));
        (verifier, grpc::channel(&self.endpoint, connector))
    }
}

/// The auth service is heard once a second, so less than two would be too little at any time.
fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 2..=0xffff_ffff) => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err("must lie between 2 and 4294967295".to_owned()),
        Err(refused) => Err(refused.to_string()),
    }
}
