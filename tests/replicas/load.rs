//! A closed-loop load: users alternate between REST and gRPC and record every failure.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use muse_proto::v1::{EmbedRequest, embedder_service_client::EmbedderServiceClient};
use muse_tests::{TIMEOUT, bearing, channel, http_client::HttpClient};
use serde_json::json;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

/// A gateway and its state by health checks, like in a load balancer.
struct Gateway {
    grpc: Channel,
    rest: HttpClient,
    serves: AtomicBool,
}

impl Gateway {
    fn new(address: SocketAddr) -> Self {
        let (grpc, rest) = (channel(address), HttpClient::new(address));
        Self { grpc, rest, serves: AtomicBool::new(true) }
    }

    async fn watch(self: Arc<Self>) {
        loop {
            let request = HealthCheckRequest { service: String::new() };
            if let Ok(reports) = HealthClient::new(self.grpc.clone()).watch(request).await {
                let mut reports = reports.into_inner();
                while let Ok(Some(report)) = reports.message().await {
                    self.serves.store(report.status() == ServingStatus::Serving, Ordering::Relaxed);
                }
            }
            self.serves.store(false, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The running users.
pub(crate) struct Load {
    answered: Arc<AtomicUsize>,
    failures: Arc<Mutex<Vec<String>>>,
    stopping: Arc<AtomicBool>,
    /// Milliseconds that a user waits after each call.
    pause: Arc<AtomicU64>,
    users: Vec<JoinHandle<()>>,
    watches: Vec<JoinHandle<()>>,
}

impl Load {
    /// Starts `users` users with a token. Each call goes to a gateway whose health check reports
    /// SERVING.
    pub(crate) fn start(gateways: &[SocketAddr], token: &str, users: usize) -> Self {
        let gateways: Arc<[_]> = gateways.iter().map(|&address| Arc::new(Gateway::new(address))).collect();
        let watches = gateways.iter().map(|gateway| tokio::spawn(Arc::clone(gateway).watch())).collect();
        let mut load = Self {
            answered: Arc::default(),
            failures: Arc::default(),
            stopping: Arc::default(),
            pause: Arc::default(),
            users: Vec::new(),
            watches,
        };
        for user in 0..users {
            let (gateways, token) = (Arc::clone(&gateways), token.to_owned());
            let (answered, failures) = (Arc::clone(&load.answered), Arc::clone(&load.failures));
            let (stopping, pause) = (Arc::clone(&load.stopping), Arc::clone(&load.pause));
            load.users.push(tokio::spawn(async move {
                for turn in user.. {
                    if stopping.load(Ordering::Relaxed) {
                        return;
                    }
                    let serving = gateways.iter().cycle().skip(turn % gateways.len()).take(gateways.len());
                    let mut serving = serving.filter(|gateway| gateway.serves.load(Ordering::Relaxed));
                    let Some(gateway) = serving.next() else {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        continue;
                    };
                    match embed(gateway, &token, turn).await {
                        Ok(()) => drop(answered.fetch_add(1, Ordering::Relaxed)),
                        Err(failure) => failures.lock().expect("no user panics").push(failure),
                    }
                    let pause = Duration::from_millis(pause.load(Ordering::Relaxed));
                    if !pause.is_zero() {
                        tokio::time::sleep(pause).await;
                    }
                }
            }));
        }
        load
    }

    /// Sets the pause of each user after a call, so that a long wait leaves the processors to others.
    pub(crate) fn pause(&self, pause: Duration) {
        self.pause.store(pause.as_millis() as u64, Ordering::Relaxed);
    }

    /// Waits until `calls` further calls are answered.
    pub(crate) async fn wait_for_answers(&self, calls: usize) {
        let goal = self.answered.load(Ordering::Relaxed) + calls;
        let reached = async {
            while self.answered.load(Ordering::Relaxed) < goal {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let in_time = tokio::time::timeout(TIMEOUT, reached).await;
        assert!(
            in_time.is_ok(),
            "{} answers, and {:?}",
            self.answered.load(Ordering::Relaxed),
            self.failures
        );
    }

    /// Stops the users. Panics if a call failed or returned the wrong number of vectors.
    pub(crate) async fn stop(mut self) {
        self.stopping.store(true, Ordering::Relaxed);
        for user in self.users.drain(..) {
            tokio::time::timeout(TIMEOUT, user).await.expect("no call hangs").expect("no user panics");
        }
        let failures = self.failures.lock().expect("no user panics");
        let answered = self.answered.load(Ordering::Relaxed);
        assert!(failures.is_empty(), "{} of {answered} calls failed: {:?}", failures.len(), failures.first());
        println!("{answered} calls answered, none failed");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        for task in self.users.iter().chain(&self.watches) {
            task.abort();
        }
    }
}

async fn embed(gateway: &Gateway, token: &str, turn: usize) -> Result<(), String> {
    let sentences: Vec<String> = (0..=turn % 3).map(|part| format!("sentence {part} of {turn}")).collect();
    let vectors = if turn.is_multiple_of(2) {
        let answer =
            gateway.rest.try_json("POST", "/embed", token, &json!({ "sentence": sentences })).await?;
        if answer.status != 200 {
            return Err(format!("REST: {} {}", answer.status, answer.json()));
        }
        answer.json()["embedding"].as_array().map_or(0, Vec::len)
    } else {
        let count = sentences.len();
        let request = bearing(token, EmbedRequest { sentences, ..EmbedRequest::default() });
        let mut client = EmbedderServiceClient::new(gateway.grpc.clone());
        let answer = client.embed(request).await.map_err(|status| format!("gRPC: {status:?}"))?;
        let vectors = answer.into_inner().embeddings;
        vectors.iter().filter(|vector| vector.packed.len() == 2048).count().min(count)
    };
    let expected = turn % 3 + 1;
    if vectors == expected { Ok(()) } else { Err(format!("{vectors} vectors for {expected} sentences")) }
}
