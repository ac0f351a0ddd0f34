//! The parts of the benchmark.

pub(crate) mod abandonment;
pub(crate) mod crowd;
pub(crate) mod curves;
pub(crate) mod fairness;
pub(crate) mod gemm;
pub(crate) mod latency;
pub(crate) mod memory;
pub(crate) mod overload;
pub(crate) mod polls;
pub(crate) mod soak;
pub(crate) mod startup;
pub(crate) mod throughput;

use muse_model::model_dir::Precision;

use crate::{
    client::{Client, Form, GrpcClient, RestClient, Version},
    options::Options,
    programs::Programs,
    report::Report,
    workload::Workload,
};

/// Sentences of a request, where nothing else is said.
pub(crate) const SENTENCES: usize = 32;
/// Clients that keep the service busy with such requests.
pub(crate) const CLIENTS: usize = 16;

/// What all sections need.
pub(crate) struct Bench<'a> {
    /// What to do.
    pub(crate) options: &'a Options,
    /// What is measured.
    pub(crate) programs: Programs,
    /// What the model computes in.
    pub(crate) precision: Precision,
    /// What is asked.
    pub(crate) workload: &'a Workload,
    /// What came out.
    pub(crate) report: &'a mut Report,
}

impl Bench<'_> {
    /// A target that depends on the precision; there is none for half precision, which CPUs are slow in.
    pub(crate) fn by_precision<T>(&self, f32: T, bf16: T) -> Option<T> {
        match self.precision {
            Precision::F32 => Some(f32),
            Precision::Bf16 => Some(bf16),
            Precision::F16 => None,
        }
    }

    /// So many clients of gRPC, with a connection each.
    pub(crate) async fn grpc_clients(&self, count: usize) -> Vec<Client> {
        self.grpc_clients_of(&self.programs.token, count).await
    }

    /// The same for another user.
    pub(crate) async fn grpc_clients_of(&self, token: &str, count: usize) -> Vec<Client> {
        let mut clients = Vec::new();
        for _ in 0..count {
            clients.push(Client::Grpc(Box::new(GrpcClient::connect(self.programs.address, token).await)));
        }
        clients
    }

    /// So many clients of REST.
    pub(crate) fn rest_clients(&self, count: usize, form: Form, version: Version) -> Vec<Client> {
        let client = || RestClient::new(self.programs.address, &self.programs.token, form, version);
        // Each with a pool of connections of its own, unlike clones.
        (0..count).map(|_| Client::Rest(Box::new(client()))).collect()
    }
}
