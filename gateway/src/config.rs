//! The gateway's options.

use std::{net::SocketAddr, time::Duration};

use clap::{Args, Parser};
use muse_server::{
    Addresses, ConfigError, ConnectionLimits, ShutdownArgs, TraceArgs, connection_limit, grpc,
    tls::{ClientTls, PeerArgs, ServerTls, UserArgs},
};
use muse_telemetry::LogArgs;
use muse_verifier::AuthArgs;
use tonic::transport::Endpoint;

use crate::{AllowedOrigins, Cookies, TrustedProxies};

/// Serves users on one port: the REST routes, and muse.v1's gRPC services straight through.
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-gateway", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// Address of the private port, for probes and Prometheus: /livez, /readyz and /metrics over plain HTTP.
    #[arg(long, env = "GATEWAY_PRIVATE_LISTEN", default_value = "127.0.0.1:5010", global = true)]
    pub private_listen: SocketAddr,

    /// Who logs the users in.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// URLs of the embedders, with commas between them. Calls go to the one with the least to do. A host name may have
    /// several addresses, each that of an embedder; they are looked up every two seconds.
    #[arg(long, env = "EMBEDDER_URL", default_value = "http://127.0.0.1:5002", value_delimiter = ',', value_parser = grpc::endpoint)]
    pub embedder: Vec<Endpoint>,

    /// Seconds after which a call that the embedder has not answered is given up; streams have no such end.
    #[arg(long, env = "CALL_TIMEOUT", default_value = "120", value_parser = seconds)]
    pub call_timeout: Duration,

    /// Seconds after which a call that the auth service has not answered is given up.
    #[arg(long, env = "AUTH_TIMEOUT", default_value = "5", value_parser = seconds)]
    pub auth_timeout: Duration,

    /// Addresses and networks (10.0.0.0/8), with commas between them, of the proxies whose X-Forwarded-For counts.
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", hide_default_value = true)]
    pub trusted_proxies: TrustedProxies,

    /// Whether tokens may travel in cookies, as in muse_as_service 1.1: `on` (marked Secure if the request came to a
    /// trusted proxy over TLS), `secure` (always marked) or `off`.
    #[arg(long, env = "COOKIES", value_enum, default_value_t = Cookies::On)]
    pub cookies: Cookies,

    /// Origins (https://example.org), with commas between them, whose web pages may call; `*` for all.
    #[arg(long, env = "CORS_ORIGINS", default_value = "", hide_default_value = true)]
    pub cors_origins: AllowedOrigins,

    /// Limits on what callers may have open.
    #[command(flatten)]
    pub limits: LimitArgs,

    /// Options of the shutdown.
    #[command(flatten)]
    pub shutdown: ShutdownArgs,

    /// How users connect.
    #[command(flatten)]
    pub users: UserArgs,

    /// How services connect with each other.
    #[command(flatten)]
    pub peers: PeerArgs,

    /// Options of traces.
    #[command(flatten)]
    pub traces: TraceArgs,

    /// Options of the log.
    #[command(flatten)]
    pub log: LogArgs,
}

/// Limits on what callers may have open. What exceeds one of them is rejected with 429 or RESOURCE_EXHAUSTED, connections are
/// closed.
#[derive(Debug, Clone, Args)]
pub struct LimitArgs {
    /// Connections that are open at a time [default: 8192, or fewer if the limit on open files allows fewer].
    #[arg(long, env = "MAX_CONNECTIONS", value_parser = count)]
    pub max_connections: Option<usize>,

    /// Connections from one address (IPv6: one /64 network), unless it is a trusted proxy's; at most half of all.
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", default_value = "1024", value_parser = count)]
    pub max_connections_per_address: usize,

    /// Requests of one user that are open at a time.
    #[arg(long, env = "MAX_CALLS_PER_USER", default_value = "512", value_parser = count)]
    pub max_calls_per_user: usize,

    /// Streams (EmbedStream, and Watch and reflection, which need no token) of one user that are open at a time; without a
    /// token, of one address.
    #[arg(long, env = "MAX_STREAMS_PER_USER", default_value = "32", value_parser = count)]
    pub max_streams_per_user: usize,

    /// Requests from one address that are open at a time.
    #[arg(long, env = "MAX_CALLS_PER_ADDRESS", default_value = "2048", value_parser = count)]
    pub max_calls_per_address: usize,

    /// Seconds after which a response is ended of which the client has read nothing more.
    #[arg(long, env = "SEND_TIMEOUT", default_value = "120", value_parser = seconds)]
    pub send_timeout: Duration,
}

impl Config {
    /// Where the service listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses { public: self.listen, private: self.private_listen }
    }

    /// How users connect to the gateway, and it to the services behind.
    ///
    /// # Errors
    ///
    /// Names the option that cannot be.
    pub fn tls(&self) -> Result<(Option<ServerTls>, Option<ClientTls>), ConfigError> {
        let server = self.users.server(self.listen, &self.peers)?;
        let embedders = self.embedder.iter().map(|endpoint| ("--embedder", endpoint.uri()));
        let client = self.peers.client(embedders.chain([("--auth", self.auth.endpoint.uri())]))?;
        self.traces.check(client.is_some())?;
        Ok((server, client))
    }
}

/// The connections that the gateway accepts at most, whatever the limit on open files.
const MAX_CONNECTIONS: usize = 8192;

impl Config {
    pub(crate) fn connection_limits(&self) -> ConnectionLimits {
        let total = self.limits.max_connections.unwrap_or(MAX_CONNECTIONS).min(connection_limit());
        let per_address = self.limits.max_connections_per_address.min((total / 2).max(1));
        let proxies = self.trusted_proxies.clone();
        ConnectionLimits::new(total, per_address, move |address| proxies.contain(address))
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        Ok(_) => Err("must lie between 1 and 1000000".to_owned()),
        Err(refused) => Err(refused.to_string()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err("must lie between 1 and 86400".to_owned()),
        Err(refused) => Err(refused.to_string()),
    }
}
