//! Clients that cost little: requests are encoded beforehand, and of answers only the bytes are counted, because the clients
//! share the cores with what is measured.

mod grpc;
mod rest;

use std::time::Duration;

use tonic::Code;

pub(crate) use grpc::GrpcClient;
pub(crate) use rest::{Form, RestClient, Version};

use crate::workload::Call;

/// How a call ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With all vectors.
    Served,
    /// With another status of gRPC.
    Grpc(Code),
    /// With another status of HTTP.
    Http(u16),
    /// The connection broke.
    Broken,
    /// With fewer bytes than the vectors take.
    Short,
}

impl Outcome {
    /// What a status without error is worth with so many bytes of an answer.
    fn of_bytes(bytes: usize, least: usize) -> Self {
        if bytes >= least { Self::Served } else { Self::Short }
    }

    /// A name for tables.
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

/// A client with a connection of its own; clones share it.
#[derive(Debug, Clone)]
pub(crate) enum Client {
    /// Speaks gRPC.
    Grpc(Box<GrpcClient>),
    /// Speaks REST.
    Rest(Box<RestClient>),
}

impl Client {
    /// Sends a request and reads the whole answer.
    pub(crate) async fn call(&mut self, call: &Call) -> Outcome {
        match self {
            Self::Grpc(client) => client.embed(call, None).await,
            Self::Rest(client) => client.embed(call).await,
        }
    }

    /// The same with a deadline, where the protocol has one.
    pub(crate) async fn call_within(&mut self, call: &Call, deadline: Duration) -> Outcome {
        match self {
            Self::Grpc(client) => client.embed(call, Some(deadline)).await,
            Self::Rest(client) => {
                tokio::time::timeout(deadline, client.embed(call)).await.unwrap_or(Outcome::Broken)
            }
        }
    }
}
