//! The sections of the benchmark.

pub(crate) mod abandonment;
pub(crate) mod command;
pub(crate) mod crowd;
pub(crate) mod curves;
pub(crate) mod fairness;
pub(crate) mod gemm;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod overload;
pub(crate) mod polls;
pub(crate) mod precisions;
pub(crate) mod retrieval;
pub(crate) mod soak;
pub(crate) mod startup;
pub(crate) mod throughput;

use muse_model::precision::Precision;

use crate::{
    client::{Client, Form, GrpcClient, RestClient, Version},
    options::Options,
    programs::Programs,
    report::{Report, Target},
    workload::Workload,
};

/// Default number of sentences per request.
pub(crate) const SENTENCES: usize = 32;
/// Number of clients that saturate the service with such requests.
pub(crate) const CLIENTS: usize = 16;

/// Shared state of the sections.
pub(crate) struct Bench<'a> {
    /// The options.
    pub(crate) options: &'a Options,
    /// The measured programs.
    pub(crate) programs: Programs,
    /// The precision of the model.
    pub(crate) precision: Precision,
    /// The workload.
    pub(crate) workload: &'a Workload,
    /// The report.
    pub(crate) report: &'a mut Report,
}

impl Bench<'_> {
    /// The minimum for the precision, if there is one.
    pub(crate) fn at_least(&self, minimums: &[(Precision, f64)]) -> Target {
        let minimum = minimums.iter().find(|(precision, _)| *precision == self.precision);
        minimum.map_or(Target::None, |(_, minimum)| Target::AtLeast(*minimum))
    }

    /// Creates `count` gRPC clients, each with its own connection.
    pub(crate) async fn grpc_clients(&self, count: usize) -> Vec<Client> {
        self.grpc_clients_of(&self.programs.token, count).await
    }

    /// Creates gRPC clients of another user.
    pub(crate) async fn grpc_clients_of(&self, token: &str, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::Grpc(Box::new(GrpcClient::connect(self.programs.address, token).await)));
        }
        clients
    }

    /// Creates `count` REST clients.
    pub(crate) fn rest_clients(&self, count: usize, form: Form, version: Version) -> Vec<Client> {
        let client = || RestClient::new(self.programs.address, &self.programs.token, form, version);
        // Each has its own connection pool, unlike clones.
        (0..count).map(|_| Client::Rest(Box::new(client()))).collect()
    }
}
