//! The configuration of the gateway: [`Args`] are the options as given, [`Config`] is what they mean on this machine. Options are
//! resolved once, before the service binds its addresses.

use std::{net::SocketAddr, time::Duration};

use clap::Parser;
use muse_proto::Fingerprint;
use muse_server::{
    Addresses, ConfigError, ShutdownArgs, TraceArgs, connection_limit, grpc,
    tls::{ClientTls, PeerArgs, ServerTls, UserArgs},
};
use muse_telemetry::LogArgs;
use muse_verifier::AuthArgs;
use tonic::transport::Endpoint;

use crate::{AllowedOrigins, Cookies, Page, TrustedProxies};

/// The default of `--max-connections`, if the limit on open files allows as many.
const MAX_CONNECTIONS: usize = 8192;

/// Serves users on one port: the REST routes, OpenAI's API for embeddings, and the gRPC services of muse.v1.
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-gateway", version)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// Address of the admin port, for probes and Prometheus: /livez, /readyz and /metrics over plain HTTP.
    #[arg(long, env = "GATEWAY_PRIVATE_LISTEN", default_value = "127.0.0.1:5010", global = true)]
    pub private_listen: SocketAddr,

    /// The auth service, which logs users in.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// URLs of the embedders, separated by commas. Calls go to the least loaded embedder. A host name may have several addresses,
    /// one for each embedder; the gateway resolves it every two seconds.
    #[arg(long, env = "EMBEDDER_URL", default_value = "http://127.0.0.1:5002", value_delimiter = ',', value_parser = grpc::endpoint)]
    pub embedder: Vec<Endpoint>,

    /// Fingerprint that embedders must have, such as f32-3fa9c07b12de; others get no calls [default: that of most embedders].
    #[arg(long, env = "MODEL_FINGERPRINT")]
    pub model_fingerprint: Option<Fingerprint>,

    /// Timeout of calls to the embedder, in seconds; streams have none.
    #[arg(long, env = "CALL_TIMEOUT", default_value = "120", value_parser = seconds)]
    pub call_timeout: Duration,

    /// Timeout of calls to the auth service, in seconds.
    #[arg(long, env = "AUTH_TIMEOUT", default_value = "5", value_parser = seconds)]
    pub auth_timeout: Duration,

    /// Addresses and networks (10.0.0.0/8), separated by commas, of the proxies whose X-Forwarded-For is trusted.
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", hide_default_value = true)]
    pub trusted_proxies: TrustedProxies,

    /// Whether tokens may travel in cookies, as in muse_as_service 1.1: `on` (marked Secure if the request came over TLS),
    /// `secure` (always marked) or `off`.
    #[arg(long, env = "COOKIES", value_enum, default_value_t = Cookies::On)]
    pub cookies: Cookies,

    /// Whether the web page is served, at `/`.
    #[arg(long, env = "PAGE", value_enum, default_value_t = Page::On)]
    pub page: Page,

    /// Origins (https://example.org), separated by commas, whose web pages may call; `*` for all.
    #[arg(long, env = "CORS_ORIGINS", default_value = "", hide_default_value = true)]
    pub cors_origins: AllowedOrigins,

    /// Limits on open connections and requests.
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

/// Limits on open connections and requests. Requests beyond a limit are rejected with 429 or RESOURCE_EXHAUSTED, connections are
/// closed.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Maximum open connections [default: 8192, or fewer if the limit on open files allows fewer].
    #[arg(long, env = "MAX_CONNECTIONS", value_parser = count)]
    pub max_connections: Option<usize>,

    /// Maximum open connections of one address (IPv6: one /64 network) that is not a trusted proxy; at most half of all.
    #[arg(long, env = "MAX_CONNECTIONS_PER_ADDRESS", default_value = "1024", value_parser = count)]
    pub max_connections_per_address: usize,

    /// Maximum open requests of one user.
    #[arg(long, env = "MAX_CALLS_PER_USER", default_value = "512", value_parser = count)]
    pub max_calls_per_user: usize,

    /// Maximum open streams (EmbedStream, and Watch and reflection, which need no token) of one user; without a token, of one
    /// address.
    #[arg(long, env = "MAX_STREAMS_PER_USER", default_value = "32", value_parser = count)]
    pub max_streams_per_user: usize,

    /// Maximum open requests of one address.
    #[arg(long, env = "MAX_CALLS_PER_ADDRESS", default_value = "2048", value_parser = count)]
    pub max_calls_per_address: usize,

    /// Seconds for which a response may be unread until it is ended.
    #[arg(long, env = "SEND_TIMEOUT", default_value = "120", value_parser = seconds)]
    pub send_timeout: Duration,
}

/// A valid configuration: files are read, limits are computed.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the service listens.
    pub addresses: Addresses,
    /// The auth service, with the timeout of its calls.
    pub auth: AuthArgs,
    /// The URLs of the embedders.
    pub embedders: Vec<Endpoint>,
    /// The fingerprint that embedders must have, if it is pinned.
    pub model_fingerprint: Option<Fingerprint>,
    /// Timeout of calls to the embedders.
    pub call_timeout: Duration,
    /// The proxies whose X-Forwarded-For is trusted.
    pub trusted_proxies: TrustedProxies,
    /// Whether tokens may travel in cookies.
    pub cookies: Cookies,
    /// Whether the web page is served.
    pub page: Page,
    /// The origins whose web pages may call.
    pub cors_origins: AllowedOrigins,
    /// Limits on open connections and requests.
    pub limits: ClientLimits,
    /// The phases of the shutdown.
    pub shutdown: ShutdownArgs,
    /// TLS for users, if any.
    pub server_tls: Option<ServerTls>,
    /// TLS to other services, if any.
    pub client_tls: Option<ClientTls>,
    /// The collector of traces, if any.
    pub traces: TraceArgs,
}

/// What users and addresses may have open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientLimits {
    /// Open connections.
    pub connections: usize,
    /// Open connections of one address.
    pub connections_per_address: usize,
    /// Open requests of one user.
    pub calls_per_user: usize,
    /// Open streams of one user.
    pub streams_per_user: usize,
    /// Open requests of one address.
    pub calls_per_address: usize,
    /// Time for which a response may be unread.
    pub send_timeout: Duration,
}

impl TryFrom<Args> for Config {
    type Error = ConfigError;

    /// Reads the files of TLS.
    ///
    /// # Errors
    ///
    /// The option that is invalid, or contradicts another one.
    fn try_from(args: Args) -> Result<Self, ConfigError> {
        let server_tls = args.users.server(args.listen, &args.peers)?;
        let embedders = args.embedder.iter().map(|endpoint| ("--embedder", endpoint.uri()));
        let client_tls = args.peers.client(embedders.chain([("--auth", args.auth.endpoint.uri())]))?;
        args.traces.check(client_tls.is_some())?;
        let mut auth = args.auth;
        auth.endpoint = auth.endpoint.timeout(args.auth_timeout);
        Ok(Self {
            addresses: Addresses { public: args.listen, admin: args.private_listen },
            auth,
            embedders: args.embedder,
            model_fingerprint: args.model_fingerprint,
            call_timeout: args.call_timeout,
            trusted_proxies: args.trusted_proxies,
            cookies: args.cookies,
            page: args.page,
            cors_origins: args.cors_origins,
            limits: args.limits.resolve(connection_limit()),
            shutdown: args.shutdown,
            server_tls,
            client_tls,
            traces: args.traces,
        })
    }
}

impl LimitArgs {
    /// The limits on a machine that allows `connection_limit` connections.
    fn resolve(&self, connection_limit: usize) -> ClientLimits {
        let connections = self.max_connections.unwrap_or(MAX_CONNECTIONS).min(connection_limit);
        ClientLimits {
            connections,
            connections_per_address: self.max_connections_per_address.min((connections / 2).max(1)),
            calls_per_user: self.max_calls_per_user,
            streams_per_user: self.max_streams_per_user,
            calls_per_address: self.max_calls_per_address,
            send_timeout: self.send_timeout,
        }
    }
}

fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=1_000_000) => Ok(count),
        Ok(_) => Err("must lie between 1 and 1000000".to_owned()),
        Err(invalid) => Err(invalid.to_string()),
    }
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds @ 1..=86_400) => Ok(Duration::from_secs(seconds)),
        Ok(_) => Err("must lie between 1 and 86400".to_owned()),
        Err(invalid) => Err(invalid.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinned_fingerprint_is_validated() {
        let pinned = |value: &str| {
            let args = Args::try_parse_from(["muse-gateway", "--model-fingerprint", value]);
            args.map(|args| args.model_fingerprint)
        };
        assert_eq!(pinned("f32-3fa9c07b12de").unwrap(), Some("f32-3fa9c07b12de".parse().unwrap()));
        let error = pinned("f32").unwrap_err().to_string();
        assert!(error.contains("it must be a fingerprint, such as f32-3fa9c07b12de"), "{error}");
    }

    #[test]
    fn connections_are_limited_by_open_files_and_per_address() {
        let limits = |options: &[&str], connection_limit| {
            let args = Args::parse_from(["muse-gateway"].iter().chain(options));
            let limits = args.limits.resolve(connection_limit);
            (limits.connections, limits.connections_per_address)
        };
        assert_eq!(limits(&[], 100_000), (8192, 1024));
        assert_eq!(limits(&[], 1_000), (1_000, 500));
        assert_eq!(limits(&["--max-connections", "10000"], 100_000), (10_000, 1024));
        assert_eq!(limits(&["--max-connections", "1"], 100_000), (1, 1));
    }
}
