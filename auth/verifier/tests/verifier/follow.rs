//! A verifier that follows a scripted service, faults included.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use ed25519_dalek::SigningKey;
use futures::{
    StreamExt,
    channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded},
};
use muse_proto::{
    Error, Reason,
    v1::{
        GetJwksRequest, JsonWebKey, ReportKeyUseRequest, ReportKeyUseResponse, ReportUsageRequest,
        ReportUsageResponse, Revocation, WatchRevocationsRequest, WatchRevocationsResponse,
        auth_service_client::AuthServiceClient,
        revocation::What,
        revocation_service_server::{RevocationService, RevocationServiceServer},
    },
};
use muse_server::tls::Connector;
use muse_verifier::{AuthArgs, Claims, Verifier};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};

use crate::signing::{KID, claims, claims_with, header, jwk, key, now, signed, signed_with};

/// Longer than any step of a test.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

type Responses = UnboundedSender<Result<WatchRevocationsResponse, Status>>;

/// Passes each call to the test.
struct Scripted(mpsc::UnboundedSender<Watch>);

/// A call: its request, and the sender of its responses. The stream ends when this is dropped.
pub(crate) struct Watch {
    pub(crate) request: WatchRevocationsRequest,
    responses: Responses,
}

impl Watch {
    pub(crate) fn send(&self, message: WatchRevocationsResponse) {
        self.responses.unbounded_send(Ok(message)).unwrap();
    }
}

#[tonic::async_trait]
impl RevocationService for Scripted {
    type WatchRevocationsStream = UnboundedReceiver<Result<WatchRevocationsResponse, Status>>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let (responses, stream) = unbounded();
        // The test may be over.
        let _ = self.0.send(Watch { request: request.into_inner(), responses });
        Ok(Response::new(stream))
    }

    async fn report_key_use(
        &self,
        _: Request<ReportKeyUseRequest>,
    ) -> Result<Response<ReportKeyUseResponse>, Status> {
        Ok(Response::new(ReportKeyUseResponse {}))
    }

    async fn report_usage(
        &self,
        _: Request<ReportUsageRequest>,
    ) -> Result<Response<ReportUsageResponse>, Status> {
        Err(Status::unimplemented("embedders report usage"))
    }
}

/// A verifier and the scripted service that it follows.
pub(crate) struct Followed {
    pub(crate) verifier: Verifier,
    calls: mpsc::UnboundedReceiver<Watch>,
    shutdown: CancellationToken,
}

impl Followed {
    pub(crate) async fn start(max_staleness: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (to_test, calls) = mpsc::unbounded_channel();
        let service = RevocationServiceServer::new(Scripted(to_test));
        let incoming = TcpIncoming::from(listener);
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));
        let channel: Channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
        let (verifier, shutdown) = (Verifier::new(max_staleness), CancellationToken::new());
        drop(verifier.follow(channel, shutdown.clone()));
        Self { verifier, calls, shutdown }
    }

    /// The next call of the verifier.
    pub(crate) async fn call(&mut self) -> Watch {
        timeout(STEP_TIMEOUT, self.calls.recv()).await.unwrap().unwrap()
    }

    /// A synced verifier.
    pub(crate) async fn synced(max_staleness: Duration) -> (Self, Watch) {
        let mut followed = Self::start(max_staleness).await;
        let watch = followed.call().await;
        watch.send(WatchRevocationsResponse { keys: vec![jwk(&key(), KID)], ..message(1) });
        timeout(STEP_TIMEOUT, followed.verifier.wait_until_synced()).await.unwrap();
        (followed, watch)
    }

    fn verify(&self, token: &str) -> Result<Arc<Claims>, Error> {
        self.verifier.verify(token, None)
    }

    fn reason(&self, token: &str) -> Option<Reason> {
        self.verify(token).err().map(|rejected| rejected.reason())
    }

    async fn until(&self, token: &str, reason: Option<Reason>) {
        let deadline = Instant::now() + STEP_TIMEOUT;
        while self.reason(token) != reason {
            assert!(Instant::now() < deadline, "{:?} and not {reason:?}", self.verify(token));
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

#[tokio::test]
async fn revocation_stream_has_its_own_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (to_test, mut calls) = mpsc::unbounded_channel();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&connections);
    let incoming = TcpIncoming::from(listener).inspect(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    let server = Server::builder().add_service(RevocationServiceServer::new(Scripted(to_test)));
    tokio::spawn(server.serve_with_incoming(incoming));

    let endpoint = muse_server::grpc::endpoint(&format!("http://{address}")).unwrap();
    let shutdown = CancellationToken::new();
    let args = AuthArgs { endpoint, max_staleness: STEP_TIMEOUT };
    let (_verifier, channel) = args.follow(&Connector::new(None), shutdown.clone());
    let _watch = timeout(STEP_TIMEOUT, calls.recv()).await.unwrap().unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // A call of a user, which this server does not implement.
    let mut users = AuthServiceClient::new(channel);
    let rejected = users.get_jwks(GetJwksRequest {}).await.unwrap_err();
    assert_eq!(rejected.code(), tonic::Code::Unimplemented);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    shutdown.cancel();
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

pub(crate) fn message(cursor: i64) -> WatchRevocationsResponse {
    WatchRevocationsResponse { cursor, log: "a log".to_owned(), ..Default::default() }
}

fn revoking(cursor: i64, id: &str) -> WatchRevocationsResponse {
    let revocation = Revocation { what: Some(What::Jti(id.to_owned())), expires_at: now() + 60 };
    WatchRevocationsResponse { revocations: vec![revocation], ..message(cursor) }
}

fn token(id: &str) -> String {
    signed(&header(), &claims_with("jti", json!(id)))
}

fn position(cursor: i64, log: &str) -> WatchRevocationsRequest {
    WatchRevocationsRequest { cursor, log: log.to_owned(), key_cursor: 0 }
}

/// Another key and a token that it signed.
fn new_key() -> (JsonWebKey, String) {
    let key = SigningKey::from_bytes(&[9; 32]);
    let token = signed_with(&key, &json!({"alg": "EdDSA", "kid": "new"}), &claims());
    (jwk(&key, "new"), token)
}

pub(crate) const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn verifier_is_not_synced_before_the_last_page() {
    let mut followed = Followed::start(LONG).await;
    let watch = followed.call().await;
    assert_eq!(watch.request, position(0, ""));
    let first = WatchRevocationsResponse { keys: vec![jwk(&key(), KID)], more: true, ..revoking(1, "a") };
    watch.send(first);
    // The stream breaks between two pages.
    drop(watch);
    let watch = followed.call().await;
    assert_eq!(watch.request, position(1, "a log"));
    assert_eq!(followed.reason(&token("x")), Some(Reason::Unavailable));
    assert!(!followed.verifier.synced());
    watch.send(revoking(2, "b"));
    followed.until(&token("x"), None).await;
    for id in ["a", "b"] {
        assert_eq!(followed.reason(&token(id)), Some(Reason::TokenRevoked));
    }
}

#[tokio::test]
async fn reconnected_verifier_misses_no_revocation() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    watch.send(revoking(2, "a"));
    followed.until(&token("a"), Some(Reason::TokenRevoked)).await;
    watch.responses.unbounded_send(Err(Status::internal("a fault"))).unwrap();
    let watch = followed.call().await;
    assert_eq!(watch.request, position(2, "a log"));
    assert!(followed.verify(&token("b")).is_ok(), "tokens remain valid while disconnected");
    watch.send(revoking(3, "b"));
    followed.until(&token("b"), Some(Reason::TokenRevoked)).await;
}

#[tokio::test]
async fn verifier_resumes_in_the_new_log() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    drop(watch);
    let watch = followed.call().await;
    watch.send(WatchRevocationsResponse { log: "another".to_owned(), ..revoking(7, "a") });
    followed.until(&token("a"), Some(Reason::TokenRevoked)).await;
    drop(watch);
    assert_eq!(followed.call().await.request, position(7, "another"));
}

#[tokio::test]
async fn changed_keys_are_replaced() {
    let (followed, watch) = Followed::synced(LONG).await;
    let (new, signed_with_new) = new_key();
    assert_eq!(followed.verifier.published_keys(), [jwk(&key(), KID)]);
    assert_eq!(followed.reason(&signed_with_new), Some(Reason::TokenInvalid));
    watch.send(WatchRevocationsResponse { keys: vec![jwk(&key(), KID), new.clone()], ..message(1) });
    followed.until(&signed_with_new, None).await;
    assert!(followed.verify(&token("x")).is_ok());
    watch.send(message(1));
    watch.send(WatchRevocationsResponse { keys: vec![new.clone()], ..message(1) });
    followed.until(&token("x"), Some(Reason::TokenInvalid)).await;
    assert_eq!(followed.verifier.published_keys(), [new]);
}

#[tokio::test]
async fn unknown_key_while_disconnected_is_unavailable() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    let (new, token) = new_key();
    assert_eq!(followed.reason(&token), Some(Reason::TokenInvalid));
    drop(watch);
    let watch = followed.call().await;
    let rejected = followed.verify(&token).unwrap_err();
    assert_eq!((rejected.reason(), rejected.retry_after().is_some()), (Reason::Unavailable, true));
    watch.send(WatchRevocationsResponse { keys: vec![new], ..message(1) });
    followed.until(&token, None).await;
}

#[tokio::test]
async fn service_without_a_usable_key_does_not_sync() {
    let mut followed = Followed::start(LONG).await;
    let watch = followed.call().await;
    watch.send(message(1));
    let watch = followed.call().await;
    assert_eq!(watch.request, position(0, ""), "a message without keys is ignored");
    assert!(!followed.verifier.synced());
}

#[tokio::test]
async fn stale_verifier_rejects_tokens_as_unavailable() {
    let (mut followed, watch) = Followed::synced(Duration::from_secs(1)).await;
    let token = token("x");
    let until = Instant::now() + Duration::from_secs(2);
    while Instant::now() < until {
        watch.send(message(1));
        assert!(followed.verify(&token).is_ok());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(watch);
    let watch = followed.call().await;
    assert!(followed.verify(&token).is_ok());
    followed.until(&token, Some(Reason::Unavailable)).await;
    let rejected = followed.verify(&token).unwrap_err();
    assert!(rejected.message().contains("for too long"), "{rejected}");
    assert_eq!(rejected.retry_after(), Some(Duration::from_secs(1)));

    // The first page is not enough.
    watch.send(WatchRevocationsResponse { more: true, ..revoking(2, "a") });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(followed.reason(&token), Some(Reason::Unavailable));
    watch.send(revoking(3, "x"));
    followed.until(&token, Some(Reason::TokenRevoked)).await;
}

#[tokio::test]
async fn silent_stream_counts_as_disconnected() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    let begun = Instant::now();
    let next = followed.call().await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(4), "{waited:?}");
    assert_eq!(next.request, position(1, "a log"));
    assert_eq!(followed.reason(&new_key().1), Some(Reason::Unavailable), "it is disconnected");
    drop(watch);
}
