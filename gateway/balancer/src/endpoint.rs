//! One embedder: its connection, its state and its load.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::future::BoxFuture;
use hyper::rt::Executor;
use muse_server::{grpc, tls::Connector};
use muse_telemetry::request_telemetry::TracedClient;
use tokio::{
    net::TcpStream,
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::{Channel, Endpoint};

use super::{load::Load, model::ModelIdentity};

/// Time for a connection of the test whether an endpoint is reachable,
const CONNECT_WITHIN: Duration = Duration::from_millis(250);
/// and between its two connections.
const CONNECT_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// An embedder at one address.
pub(super) struct EmbedderEndpoint {
    pub(super) address: SocketAddr,
    /// Connects when it is first used, and again after a break.
    pub(super) channel: TracedClient<Channel>,
    target: Endpoint,
    connector: Connector,
    condition: Mutex<Condition>,
    pub(super) load: Load,
    /// Notified when the endpoint is ejected.
    pub(super) recheck: Notify,
    /// Cancelled when the address is no longer resolved.
    pub(super) removed: CancellationToken,
}

/// The state of an endpoint, the best for the next call first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    /// It reports that it serves.
    Serving,
    /// No report yet.
    Unknown,
    /// It reports that it does not serve, cannot be reached, or was ejected.
    Unavailable,
}

/// What is known of an endpoint.
#[derive(Debug, Clone)]
pub(super) struct Condition {
    pub(super) state: State,
    /// The model that it last reported.
    pub(super) model: Option<ModelIdentity>,
    /// Whether its last report was that it does not serve: it has announced its shutdown, or has not started yet.
    pub(super) withdrawn: bool,
}

impl EmbedderEndpoint {
    pub(super) fn new(
        address: SocketAddr,
        target: &Endpoint,
        connector: &Connector,
        removed: CancellationToken,
    ) -> Self {
        // Certificates are for the name in the URL; only the address is fixed.
        let connector = connector.at(address);
        Self {
            address,
            channel: TracedClient(grpc::channel(target, &connector)),
            target: target.clone(),
            connector,
            condition: Mutex::new(Condition { state: State::Unknown, model: None, withdrawn: false }),
            load: Load::default(),
            recheck: Notify::new(),
            removed,
        }
    }

    /// A connection for one stream, which is closed when the guard is dropped.
    ///
    /// hyper does not reset the stream of a caller who has left while it waits to send more of it, and a stream affects all calls on
    /// its connection (by its windows, and HTTP/2's limits).
    pub(super) fn dedicated_channel(&self) -> (TracedClient<Channel>, DropGuard) {
        let closed = CancellationToken::new();
        let target = self.target.clone().executor(ConnectionExecutor(closed.clone()));
        (TracedClient(grpc::channel(&target, &self.connector)), closed.drop_guard())
    }

    /// Whether it accepts connections, twice in a row: a process that was killed may have closed its connections a moment before
    /// its listener.
    pub(super) async fn is_reachable(&self) -> bool {
        let connects = async || {
            let connected = timeout(CONNECT_WITHIN, TcpStream::connect(self.address)).await;
            connected.is_ok_and(|connected| connected.is_ok())
        };
        connects().await && {
            sleep(CONNECT_AGAIN_AFTER).await;
            connects().await
        }
    }

    pub(super) fn state(&self) -> State {
        self.lock_condition().state
    }

    /// The state, if the endpoint has this model.
    pub(super) fn state_with(&self, model: &ModelIdentity) -> Option<State> {
        let condition = self.lock_condition();
        (condition.model.as_ref() == Some(model)).then_some(condition.state)
    }

    pub(super) fn condition(&self) -> Condition {
        self.lock_condition().clone()
    }

    /// Applies a report of a health check.
    pub(super) fn report(&self, state: State, model: ModelIdentity) {
        let withdrawn = state != State::Serving;
        *self.lock_condition() = Condition { state, model: Some(model), withdrawn };
    }

    /// Records that the endpoint cannot be reached. Its model is that of its last report.
    pub(super) fn set_unavailable(&self) {
        self.lock_condition().state = State::Unavailable;
    }

    /// Ejects the endpoint after a failed call: it gets no calls until its health check reports that it serves.
    pub(super) fn eject(&self) {
        self.set_unavailable();
        self.recheck.notify_one();
    }

    fn lock_condition(&self) -> MutexGuard<'_, Condition> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the tasks of a connection until it is closed.
#[derive(Clone)]
struct ConnectionExecutor(CancellationToken);

impl Executor<BoxFuture<'static, ()>> for ConnectionExecutor {
    fn execute(&self, task: BoxFuture<'static, ()>) {
        let closed = self.0.clone();
        tokio::spawn(async move { closed.run_until_cancelled(task).await });
    }
}

impl fmt::Debug for EmbedderEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?} {}", self.address, self.state(), self.load.get())
    }
}
