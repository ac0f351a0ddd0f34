//! A verifier that follows a service which does what the test says, faults included.

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
        GetJwksRequest, JsonWebKey, Revocation, WatchRevocationsRequest, WatchRevocationsResponse,
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

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

type Answers = UnboundedSender<Result<WatchRevocationsResponse, Status>>;

/// Hands each call to the test.
struct Scripted(mpsc::UnboundedSender<Watch>);

/// A call: what was asked, and where to put the answers. The stream ends when this is dropped.
struct Watch {
    request: WatchRevocationsRequest,
    answers: Answers,
}

impl Watch {
    fn send(&self, message: WatchRevocationsResponse) {
        self.answers.unbounded_send(Ok(message)).unwrap();
    }
}

#[tonic::async_trait]
impl RevocationService for Scripted {
    type WatchRevocationsStream = UnboundedReceiver<Result<WatchRevocationsResponse, Status>>;

    async fn watch_revocations(
        &self,
        request: Request<WatchRevocationsRequest>,
    ) -> Result<Response<Self::WatchRevocationsStream>, Status> {
        let (answers, stream) = unbounded();
        // The test may be over.
        let _ = self.0.send(Watch { request: request.into_inner(), answers });
        Ok(Response::new(stream))
    }
}

/// A verifier and the other end of what it follows.
struct Followed {
    verifier: Verifier,
    calls: mpsc::UnboundedReceiver<Watch>,
    shutdown: CancellationToken,
}

impl Followed {
    async fn start(max_staleness: Duration) -> Self {
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

    /// The next call of the follower.
    async fn call(&mut self) -> Watch {
        timeout(PATIENCE, self.calls.recv()).await.unwrap().unwrap()
    }

    /// One that has been in touch.
    async fn synced(max_staleness: Duration) -> (Self, Watch) {
        let mut followed = Self::start(max_staleness).await;
        let watch = followed.call().await;
        watch.send(WatchRevocationsResponse { keys: vec![jwk(&key(), KID)], ..message(1) });
        timeout(PATIENCE, followed.verifier.wait_until_synced()).await.unwrap();
        (followed, watch)
    }

    fn verify(&self, token: &str) -> Result<Arc<Claims>, Error> {
        self.verifier.verify(token, None)
    }

    fn reason(&self, token: &str) -> Option<Reason> {
        self.verify(token).err().map(|refused| refused.reason())
    }

    async fn until(&self, token: &str, reason: Option<Reason>) {
        let deadline = Instant::now() + PATIENCE;
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
    let args = AuthArgs { endpoint, max_staleness: PATIENCE };
    let (_verifier, channel) = args.follow(&Connector::new(None), shutdown.clone());
    let _watch = timeout(PATIENCE, calls.recv()).await.unwrap().unwrap();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    // A call of a user, which this server does not know.
    let mut users = AuthServiceClient::new(channel);
    let refused = users.get_jwks(GetJwksRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unimplemented);
    assert_eq!(connections.load(Ordering::SeqCst), 2);
    shutdown.cancel();
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn message(cursor: i64) -> WatchRevocationsResponse {
    WatchRevocationsResponse { cursor, log: "a log".to_owned(), ..Default::default() }
}

fn revoking(cursor: i64, id: &str) -> WatchRevocationsResponse {
    let revocation = Revocation { what: Some(What::Jti(id.to_owned())), expires_at: now() + 60 };
    WatchRevocationsResponse { revocations: vec![revocation], ..message(cursor) }
}

fn token(id: &str) -> String {
    signed(&header(), &claims_with("jti", json!(id)))
}

fn place(cursor: i64, log: &str) -> WatchRevocationsRequest {
    WatchRevocationsRequest { cursor, log: log.to_owned() }
}

/// Another key and a token that it has signed.
fn new_key() -> (JsonWebKey, String) {
    let key = SigningKey::from_bytes(&[9; 32]);
    let token = signed_with(&key, &json!({"alg": "EdDSA", "kid": "new"}), &claims());
    (jwk(&key, "new"), token)
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn all_pages_must_be_there_before_anything_is_said() {
    let mut followed = Followed::start(LONG).await;
    let watch = followed.call().await;
    assert_eq!(watch.request, place(0, ""));
    let first = WatchRevocationsResponse { keys: vec![jwk(&key(), KID)], more: true, ..revoking(1, "a") };
    watch.send(first);
    // Broken off in the middle.
    drop(watch);
    let watch = followed.call().await;
    assert_eq!(watch.request, place(1, "a log"));
    assert_eq!(followed.reason(&token("x")), Some(Reason::Unavailable));
    assert!(!followed.verifier.synced());
    watch.send(revoking(2, "b"));
    followed.until(&token("x"), None).await;
    for id in ["a", "b"] {
        assert_eq!(followed.reason(&token(id)), Some(Reason::TokenRevoked));
    }
}

#[tokio::test]
async fn a_revocation_is_heard_and_a_break_misses_none() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    watch.send(revoking(2, "a"));
    followed.until(&token("a"), Some(Reason::TokenRevoked)).await;
    watch.answers.unbounded_send(Err(Status::internal("a fault"))).unwrap();
    let watch = followed.call().await;
    assert_eq!(watch.request, place(2, "a log"));
    assert!(followed.verify(&token("b")).is_ok(), "what is known holds on");
    watch.send(revoking(3, "b"));
    followed.until(&token("b"), Some(Reason::TokenRevoked)).await;
}

#[tokio::test]
async fn another_log_is_followed_from_then_on() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    drop(watch);
    let watch = followed.call().await;
    watch.send(WatchRevocationsResponse { log: "another".to_owned(), ..revoking(7, "a") });
    followed.until(&token("a"), Some(Reason::TokenRevoked)).await;
    drop(watch);
    assert_eq!(followed.call().await.request, place(7, "another"));
}

#[tokio::test]
async fn keys_are_replaced_as_they_change() {
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
async fn an_unknown_key_may_be_a_new_one_while_out_of_touch() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    let (new, token) = new_key();
    assert_eq!(followed.reason(&token), Some(Reason::TokenInvalid));
    drop(watch);
    let watch = followed.call().await;
    let refused = followed.verify(&token).unwrap_err();
    assert_eq!((refused.reason(), refused.retry_after().is_some()), (Reason::Unavailable, true));
    watch.send(WatchRevocationsResponse { keys: vec![new], ..message(1) });
    followed.until(&token, None).await;
}

#[tokio::test]
async fn a_service_without_a_usable_key_is_not_believed() {
    let mut followed = Followed::start(LONG).await;
    let watch = followed.call().await;
    watch.send(message(1));
    let watch = followed.call().await;
    assert_eq!(watch.request, place(0, ""), "what came without keys does not count");
    assert!(!followed.verifier.synced());
}

#[tokio::test]
async fn after_too_long_without_contact_nothing_is_said() {
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
    let refused = followed.verify(&token).unwrap_err();
    assert!(refused.message().contains("for too long"), "{refused}");
    assert_eq!(refused.retry_after(), Some(Duration::from_secs(1)));

    // A part of the news is not enough.
    watch.send(WatchRevocationsResponse { more: true, ..revoking(2, "a") });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(followed.reason(&token), Some(Reason::Unavailable));
    watch.send(revoking(3, "x"));
    followed.until(&token, Some(Reason::TokenRevoked)).await;
}

#[tokio::test]
async fn silence_is_taken_for_a_loss() {
    let (mut followed, watch) = Followed::synced(LONG).await;
    let begun = Instant::now();
    let next = followed.call().await;
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(4) && waited < Duration::from_secs(8), "{waited:?}");
    assert_eq!(next.request, place(1, "a log"));
    assert_eq!(followed.reason(&new_key().1), Some(Reason::Unavailable), "it is out of touch");
    drop(watch);
}
