//! Cheap clients: requests are pre-encoded, and only the bytes of responses are counted, because
//! the clients share the cores with the service.

mod grpc;
mod rest;

use std::time::Duration;

use tonic::Code;

pub(crate) use grpc::GrpcClient;
pub(crate) use rest::{Form, RestClient, Version};

use crate::workload::Call;

/// The result of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All vectors were returned.
    Served,
    /// A gRPC error.
    Grpc(Code),
    /// An HTTP error.
    Http(u16),
    /// The connection broke.
    Broken,
    /// The response has fewer bytes than the vectors.
    Short,
}

impl Outcome {
    /// The result of a successful status with `bytes` bytes of a response.
    fn of_bytes(bytes: usize, least: usize) -> Self {
        if bytes >= least { Self::Served } else { Self::Short }
    }

    /// The name in tables.
    pub(crate) fn label(self) -> String {
        match self {
            Self::Served => "served".to_owned(),
            Self::Grpc(code) => format!("{code:?}"),
            Self::Http(status) => status.to_string(),
            Self::Broken => "connection broken".to_owned(),
            Self::Short => "answer too short".to_owned(),
        }
    }
}

/// A client with its own connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Client {
    /// gRPC.
    Grpc(Box<GrpcClient>),
    /// REST.
    Rest(Box<RestClient>),
}

impl Client {
    /// Sends a request and reads the whole response.
    pub(crate) async fn call(&mut self, call: &Call) -> Outcome {
        match self {
            Self::Grpc(client) => client.embed(call, None).await,
            Self::Rest(client) => client.embed(call).await,
        }
    }

    /// Like `call`, with a deadline, or a timeout over REST.
    pub(crate) async fn call_within(&mut self, call: &Call, deadline: Duration) -> Outcome {
        match self {
            Self::Grpc(client) => client.embed(call, Some(deadline)).await,
            Self::Rest(client) => {
                tokio::time::timeout(deadline, client.embed(call)).await.unwrap_or(Outcome::Broken)
            }
        }
    }
}
