//! The gateway's options.

use std::net::SocketAddr;

use clap::Parser;
use muse_chassis::LogArgs;
use muse_verifier::AuthArgs;
use tonic::transport::Endpoint;

use crate::TrustedProxies;

/// Serves users on one port: the REST routes, and muse.v1's gRPC services straight through.
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-gateway", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// Who logs the users in.
    #[command(flatten)]
    pub auth: AuthArgs,

    /// URL of the embedder.
    #[arg(long, env = "EMBEDDER_URL", default_value = "http://127.0.0.1:5002", value_parser = muse_chassis::grpc::endpoint)]
    pub embedder: Endpoint,

    /// Addresses and networks (10.0.0.0/8), with commas between them, of the proxies whose X-Forwarded-For counts.
    #[arg(long, env = "TRUSTED_PROXIES", default_value = "", hide_default_value = true)]
    pub trusted_proxies: TrustedProxies,

    /// Options of the log.
    #[command(flatten)]
    pub log: LogArgs,
}
