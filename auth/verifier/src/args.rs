//! The options of a service that verifies tokens.

use std::time::Duration;

use muse_server::{grpc, tls::Connector};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::Verifier;

/// How a service reaches the auth service.
///
/// clap parses the options into their final types, and they depend on no file and on no other
/// option, so there is no second type that they resolve to.
#[derive(Debug, Clone, clap::Args)]
pub struct AuthArgs {
    /// URL of the auth service.
    #[arg(long = "auth", env = "AUTH_URL", default_value = "http://127.0.0.1:5001", value_parser = grpc::endpoint)]
    pub endpoint: Endpoint,

    /// Seconds for which tokens are accepted while the auth service is unreachable.
    #[arg(long, env = "AUTH_MAX_STALENESS", default_value = "300", value_parser = parse_staleness)]
    pub max_staleness: Duration,
}

impl AuthArgs {
    /// Starts a verifier that follows the auth service until `shutdown`, and returns it with a
    /// channel for the calls of users, which connects lazily and reconnects.
    ///
    /// The verifier has a connection of its own, so that no call of a user can break the revocation
    /// stream.
    #[must_use]
    pub fn follow(&self, connector: &Connector, shutdown: CancellationToken) -> (Verifier, Channel) {
        let verifier = Verifier::new(self.max_staleness);
        // The task ends with the shutdown.
        drop(verifier.follow(grpc::channel(&self.endpoint, connector), shutdown));
        (verifier, grpc::channel(&self.endpoint, connector))
    }
}

/// At least 2 seconds, because the auth service sends a message every second.
fn parse_staleness(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 2..=0xffff_ffff) => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err("must lie between 2 and 4294967295".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
