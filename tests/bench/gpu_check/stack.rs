//! The whole stack under load: closed-loop clients through the gateway.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use muse_model::{device, precision::Precision};
use muse_proto::v1::EmbedRequest;
use muse_tests::{Stack, auth_config, bearing, golden_sentences, start_auth, start_embedder, start_gateway};
use tch::Device;

/// The load.
#[derive(Clone, Copy)]
pub(crate) struct Load {
    pub(crate) clients: usize,
    pub(crate) sentences: usize,
    pub(crate) duration: Duration,
}

/// The results of a load.
pub(crate) struct Measured {
    /// Durations of the calls in ascending order.
    calls: Vec<Duration>,
    sentences_per_second: f64,
}

impl Measured {
    pub(crate) fn cells(&self, precision: Precision, load: Load) -> Vec<String> {
        let percentile = |percent: usize| {
            let rank = (self.calls.len() * percent).div_ceil(100).saturating_sub(1);
            self.calls.get(rank).map_or_else(String::new, |took| format!("{:.2}", took.as_secs_f64() * 1e3))
        };
        vec![
            precision.to_string(),
            load.clients.to_string(),
            load.sentences.to_string(),
            self.calls.len().to_string(),
            format!("{:.0}", self.sentences_per_second),
            percentile(50),
            percentile(99),
        ]
    }
}

/// Starts a stack with a model directory, with the embedder on `device` and in `precision`, and
/// measures it under load.
pub(crate) async fn measure(model: &Path, device: Device, precision: Precision, load: Load) -> Measured {
    let stack = start(model, device, precision).await;
    let token = stack.login().await.access_token;
    let texts: Vec<String> = golden_sentences()
        .into_iter()
        .filter(|sentence| !sentence.kind.starts_with("hard:"))
        .map(|sentence| sentence.text)
        .collect();
    let (stack_, token_, texts_) = (&stack, &token, &texts);
    let began = Instant::now();
    let clients = (0..load.clients).map(async |client| {
        let mut stub = stack_.embedder_client();
        let mut texts = texts_.iter().cycle().skip(client * load.sentences).cloned();
        let mut calls = Vec::new();
        while calls.is_empty() || began.elapsed() < load.duration {
            let sentences = texts.by_ref().take(load.sentences).collect();
            let request = bearing(token_, EmbedRequest { sentences, ..EmbedRequest::default() });
            let called = Instant::now();
            let response = stub.embed(request).await.expect("it is served").into_inner();
            calls.push(called.elapsed());
            assert_eq!(response.embeddings.len(), load.sentences);
        }
        calls
    });
    let mut calls = futures::future::join_all(clients).await.concat();
    let sentences_per_second = (calls.len() * load.sentences) as f64 / began.elapsed().as_secs_f64();
    stack.stop().await;
    calls.sort_unstable();
    Measured { calls, sentences_per_second }
}

async fn start(model: &Path, device: Device, precision: Precision) -> Stack {
    let data = tempfile::tempdir().expect("a temporary directory can be made");
    let auth = start_auth(auth_config(data.path())).await;
    let name = device::name(device);
    // The test measures throughput: also on a slow device, no call is to be rejected.
    let options = ["--device", &name, "--precision", precision.as_str(), "--max-queue-seconds", "600"];
    let embedder = start_embedder(model, auth.address, &options).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    stack
}
