//! The gateway's options.

use std::net::SocketAddr;

use clap::Parser;
use muse_chassis::LogArgs;
use tonic::transport::Endpoint;

/// Serves users on one port: the REST routes, and muse.v1's gRPC services straight through.
#[derive(Debug, Clone, Parser)]
#[command(name = "muse-gateway", version)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "GATEWAY_LISTEN", default_value = "127.0.0.1:5000")]
    pub listen: SocketAddr,

    /// URL of the auth service.
    #[arg(long, env = "AUTH_URL", default_value = "http://127.0.0.1:5001", value_parser = muse_chassis::grpc::endpoint)]
    pub auth: Endpoint,

    /// URL of the embedder.
    #[arg(long, env = "EMBEDDER_URL", default_value = "http://127.0.0.1:5002", value_parser = muse_chassis::grpc::endpoint)]
    pub embedder: Endpoint,

    /// Options of the log.
    #[command(flatten)]
    pub log: LogArgs,
}
