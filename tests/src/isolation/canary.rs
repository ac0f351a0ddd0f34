//! The canary: another user during an attack, with single calls at a constant rate, periodic
//! logins, and one open stream.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use muse_proto::v1::{EmbedRequest, EmbedStreamRequest, embedder_service_client::EmbedderServiceClient};
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{
    quantile_ms,
    stack::{Stack, channel_from, login},
};
use crate::bearing;

/// The source address of the canary.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));
/// Interval of calls: 50 per second.
const EVERY: Duration = Duration::from_millis(20);
/// Interval of logins.
const LOGIN_EVERY: Duration = Duration::from_secs(2);
/// Interval of items of the stream.
const ITEM_EVERY: Duration = Duration::from_millis(100);
/// Timeout of calls.
const DEADLINE: Duration = Duration::from_secs(10);
/// The user who embeds.
const EMBEDDER: &str = "canary";
/// The user who logs in.
const LOGGER_IN: &str = "bob";

/// The observations of the canary.
#[derive(Debug, Default, Clone)]
pub struct Record {
    /// Latencies of calls.
    pub latencies: Vec<Duration>,
    /// Errors of failed calls.
    pub failures: Vec<String>,
    /// Number of successful logins.
    pub logins: usize,
    /// Errors of failed logins.
    pub login_failures: Vec<String>,
    /// Number of answers on the open stream.
    pub items: usize,
    /// Reasons for which the open stream ended.
    pub stream_breaks: Vec<String>,
}

impl Record {
    /// A quantile of the latency of calls in milliseconds.
    #[must_use]
    pub fn latency(&self, q: f64) -> f64 {
        quantile_ms(&self.latencies, q)
    }

    /// All errors with their counts.
    #[must_use]
    pub fn failed(&self) -> BTreeMap<&str, usize> {
        let mut counts = BTreeMap::new();
        for failure in [&self.failures, &self.login_failures, &self.stream_breaks].into_iter().flatten() {
            *counts.entry(failure.as_str()).or_default() += 1;
        }
        counts
    }

    /// Adds another record.
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.failures.extend(other.failures);
        self.logins += other.logins;
        self.login_failures.extend(other.login_failures);
        self.items += other.items;
        self.stream_breaks.extend(other.stream_breaks);
    }
}

/// A running canary on its own thread.
#[derive(Debug)]
pub struct Canary {
    record: Arc<Mutex<Record>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Canary {
    /// Adds the users and starts the canary.
    pub async fn start(stack: &Stack) -> Self {
        let token = stack.add_user(EMBEDDER).await.access_token;
        stack.add_user(LOGGER_IN).await;
        let (record, stop) = (Arc::<Mutex<Record>>::default(), CancellationToken::new());
        let (shared, stopped, gateway) = (Arc::clone(&record), stop.clone(), stack.gateway.address);
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.expect("threads can be started");
            runtime.block_on(async {
                tokio::select! {
                    () = embed(gateway, &token, &shared) => {}
                    () = log_in(gateway, &shared) => {}
                    () = stream_items(gateway, &token, &shared) => {}
                    () = stopped.cancelled() => {}
                }
            });
        });
        Self { record, stop, thread: Some(thread) }
    }

    /// Returns the observations since the last call.
    #[must_use]
    pub fn take(&self) -> Record {
        std::mem::take(&mut *lock(&self.record))
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One call per tick, independent of earlier calls (open loop).
async fn embed(gateway: SocketAddr, token: &str, record: &Arc<Mutex<Record>>) {
    let client = EmbedderServiceClient::new(channel_from(ADDRESS, gateway));
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let (mut client, record) = (client.clone(), Arc::clone(record));
        let request = EmbedRequest { sentences: vec!["canary".to_owned()], ..EmbedRequest::default() };
        let request = bearing(token, request);
        tokio::spawn(async move {
            let start = Instant::now();
            match timeout(DEADLINE, client.embed(request)).await {
                Ok(Ok(_)) => lock(&record).latencies.push(start.elapsed()),
                Ok(Err(status)) => lock(&record).failures.push(format!("Embed: {status}")),
                Err(_) => lock(&record).failures.push("Embed: no answer".to_owned()),
            }
        });
    }
}

async fn log_in(gateway: SocketAddr, record: &Arc<Mutex<Record>>) {
    let channel = channel_from(ADDRESS, gateway);
    loop {
        sleep(LOGIN_EVERY).await;
        let outcome = timeout(DEADLINE, login(channel.clone(), LOGGER_IN)).await;
        let mut record = lock(record);
        match outcome {
            Ok(Ok(_)) => record.logins += 1,
            Ok(Err(status)) => record.login_failures.push(format!("Login: {status}")),
            Err(_) => record.login_failures.push("Login: no answer".to_owned()),
        }
    }
}

/// Keeps a stream open; reopens it when it ends.
async fn stream_items(gateway: SocketAddr, token: &str, record: &Arc<Mutex<Record>>) {
    loop {
        // A separate connection, like another program of the user.
        let channel = channel_from(ADDRESS, gateway);
        let why = match one_stream(channel, token, record).await {
            Ok(()) => "it ended".to_owned(),
            Err(failure) => failure,
        };
        lock(record).stream_breaks.push(format!("EmbedStream: {why}"));
        sleep(Duration::from_millis(200)).await;
    }
}

async fn one_stream(channel: Channel, token: &str, record: &Arc<Mutex<Record>>) -> Result<(), String> {
    let items = stream::unfold(interval(ITEM_EVERY), |mut ticks| async {
        ticks.tick().await;
        Some((EmbedStreamRequest { id: "c".to_owned(), sentence: "canary".to_owned() }, ticks))
    });
    let call = EmbedderServiceClient::new(channel).embed_stream(bearing(token, items)).await;
    let mut answers = call.map_err(|status| status.to_string())?.into_inner();
    loop {
        match timeout(DEADLINE, answers.next()).await {
            Err(_) => return Err("no answer".to_owned()),
            Ok(None) => return Ok(()),
            Ok(Some(Err(status))) => return Err(status.to_string()),
            Ok(Some(Ok(_))) => lock(record).items += 1,
        }
    }
}
