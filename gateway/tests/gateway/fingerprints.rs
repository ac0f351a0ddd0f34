//! Fingerprints: a gateway reports that of the model, checks what a request requires, and uses the embedders of one model only.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::{StreamExt, stream};
use http::StatusCode;
use muse_gateway::SystemResolver;
use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, EmbedStreamRequest, GetModelRequest},
};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, metadata::MetadataValue};

use crate::{
    bearing,
    fake_embedder::{Behavior, Embedder, embed},
    harness::{Backend, Gateway, HttpResponse, token},
};

const A: &str = "f32-00000000000a";
const B: &str = "bf16-00000000000b";
const HEADER: &str = "muse-fingerprint";

/// A gateway and its embedders.
struct Fleet {
    gateway: Gateway,
    embedders: Vec<Embedder>,
    _backend: Backend,
}

impl Fleet {
    /// Embedders with these fingerprints and the numbers 1, 2, …
    async fn start(fingerprints: &[Option<&'static str>], options: &[&str]) -> Self {
        let mut embedders = Vec::new();
        for (index, fingerprint) in fingerprints.iter().enumerate() {
            embedders.push(Embedder::start("127.0.0.1:0", (index + 1) as f32, *fingerprint).await);
        }
        let urls: Vec<String> = embedders.iter().map(Embedder::url).collect();
        let backend = Backend::start().await;
        let resolver = Box::new(SystemResolver::default());
        let gateway = Gateway::start_before(&backend, &urls.join(","), resolver, options).await;
        Self { gateway, embedders, _backend: backend }
    }

    async fn ready(fingerprints: &[Option<&'static str>]) -> Self {
        let fleet = Self::start(fingerprints, &[]).await;
        fleet.gateway.wait_until_ready().await;
        fleet
    }

    /// Kills an embedder, and starts another one on its address.
    async fn replace(&mut self, index: usize, fingerprint: Option<&'static str>) {
        self.embedders[index].kill();
        self.embedders[index] = self.embedders[index].replace(fingerprint).await;
    }

    /// The status and the lines of `/readyz`.
    async fn readiness(&self) -> (StatusCode, Vec<String>) {
        let response = self.gateway.send_to_admin("/readyz").await;
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        (response.status, text.lines().map(str::to_owned).collect())
    }

    /// The value of a gauge.
    async fn gauge(&self, name: &str) -> Option<f64> {
        let response = self.gateway.send_to_admin("/metrics").await;
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
    }

    /// The number of embedders that serve, used or not.
    async fn healthy(&self) -> f64 {
        let used = self.gauge("muse_embedders_serving").await.unwrap();
        used + self.gauge("muse_embedders_unused").await.unwrap()
    }

    async fn status(&self) -> Value {
        let response = self.gateway.send_as(&token("access", "a", None), "GET", "/api/status").await;
        assert_eq!(response.status, 200);
        response.json()
    }

    /// Waits until the gateway serves a model.
    async fn wait_until_served(&self, fingerprint: &str) {
        until(async || self.send("GET", "/v1/models", &[], "").await.header(HEADER) == fingerprint).await;
    }

    /// Sends a request with a token.
    async fn send(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> HttpResponse {
        let authorization = format!("Bearer {}", token("access", "a", None));
        let mut own = vec![("authorization", authorization.as_str())];
        own.extend((!body.is_empty()).then_some(("content-type", "application/json")));
        self.gateway.send_body(method, target, &[&own, headers].concat(), body).await
    }
}

async fn until(mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !holds().await {
        assert!(Instant::now() < end, "timeout of the condition");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All routes over HTTP that use the model.
const ROUTES: [(&str, &str, &str); 9] = [
    ("GET", "/embed?sentence=a", ""),
    ("POST", "/embed", r#"{"sentence": "a"}"#),
    ("POST", "/embed", r#"{"inputs": "a"}"#),
    ("GET", "/tokenize?sentence=a", ""),
    ("POST", "/tokenize", r#"{"sentence": "a"}"#),
    ("POST", "/v1/embeddings", r#"{"model": "a model", "input": "a"}"#),
    ("GET", "/v1/models", ""),
    ("GET", "/v1/models/a%20model", ""),
    ("GET", "/api/status", ""),
];

fn requiring<T>(fingerprint: &str, message: T) -> Request<T> {
    let mut call = bearing(&token("access", "a", None), message);
    call.metadata_mut().insert(HEADER, fingerprint.parse().unwrap());
    call
}

fn one_sentence() -> EmbedRequest {
    EmbedRequest { sentences: vec!["a".to_owned()], ..EmbedRequest::default() }
}

fn one_item() -> impl stream::Stream<Item = EmbedStreamRequest> + Send + 'static {
    stream::iter([EmbedStreamRequest { id: "a".to_owned(), sentence: "a".to_owned() }])
}

#[tokio::test]
async fn every_response_has_the_fingerprint() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[], body).await;
        assert_eq!((response.status, response.header(HEADER)), (StatusCode::OK, A), "{method} {target}");
    }
    let body = r#"{"model": "a model", "input": "a"}"#;
    assert_eq!(fleet.send("POST", "/v1/embeddings", &[], body).await.json()["system_fingerprint"], A);
    let base64 = r#"{"model": "a model", "input": "a", "encoding_format": "base64"}"#;
    assert_eq!(fleet.send("POST", "/v1/embeddings", &[], base64).await.json()["system_fingerprint"], A);
    assert_eq!(fleet.send("GET", "/v1/models", &[], "").await.json()["data"][0]["fingerprint"], A);
    assert_eq!(fleet.send("GET", "/v1/models/a%20model", &[], "").await.json()["fingerprint"], A);
    let status = fleet.status().await;
    assert_eq!(
        (&status["model"]["fingerprint"], &status["embedders"][0]["fingerprint"]),
        (&json!(A), &json!(A))
    );

    let mut client = fleet.gateway.embedder();
    let call = |message| bearing(&token("access", "a", None), message);
    let response = client.embed(call(one_sentence())).await.unwrap();
    assert_eq!(response.metadata().get(HEADER).unwrap(), A);
    let call = bearing(&token("access", "a", None), one_item());
    let response = client.embed_stream(call).await.unwrap();
    assert_eq!(response.metadata().get(HEADER).unwrap(), A);
    assert!(response.into_inner().next().await.unwrap().is_ok());

    // A page of another origin may read it.
    let options = ["--cors-origins", "https://example.org"];
    let fleet = Fleet::start(&[Some(A)], &options).await;
    fleet.gateway.wait_until_ready().await;
    let response = fleet.send("GET", "/v1/models", &[("origin", "https://example.org")], "").await;
    assert!(response.header("access-control-expose-headers").contains(HEADER));
}

#[tokio::test]
async fn errors_have_the_fingerprint_too() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    for (method, target, body, status) in [
        ("GET", "/embed", "", 400),
        ("POST", "/v1/embeddings", r#"{"model": "another", "input": "a"}"#, 404),
        ("POST", "/v1/embeddings", "{", 400),
    ] {
        let response = fleet.send(method, target, &[], body).await;
        assert_eq!((response.status.as_u16(), response.header(HEADER)), (status, A), "{method} {target}");
    }
    let unauthenticated = fleet.gateway.send("GET", "/v1/models", &[]).await;
    assert_eq!((unauthenticated.status.as_u16(), unauthenticated.header(HEADER)), (401, A));
    let status = fleet.gateway.embedder().embed(one_sentence()).await.unwrap_err();
    assert_eq!(
        (status.code(), status.metadata().get(HEADER).unwrap().as_bytes()),
        (Code::Unauthenticated, A.as_bytes())
    );

    fleet.embedders[0].respond_with_error(Reason::Overloaded, Duration::from_secs(1));
    let response = fleet.send("GET", "/embed?sentence=a", &[], "").await;
    assert_eq!((response.status.as_u16(), response.header(HEADER)), (429, A));
    // Other routes do not use the model.
    assert_eq!(fleet.gateway.send("GET", "/api/ready", &[]).await.header(HEADER), "");
    assert_eq!(fleet.gateway.send("GET", "/login", &[]).await.header(HEADER), "");
}

#[tokio::test]
async fn required_fingerprint_of_the_model_is_served() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[(HEADER, A)], body).await;
        assert_eq!((response.status, response.header(HEADER)), (StatusCode::OK, A), "{method} {target}");
    }
    let mut client = fleet.gateway.embedder();
    assert!(client.embed(requiring(A, one_sentence())).await.is_ok());
    assert!(client.get_model(requiring(A, GetModelRequest {})).await.is_ok());
    let responses = client.embed_stream(requiring(A, one_item())).await.unwrap().into_inner();
    assert!(responses.all(async |response| response.is_ok()).await);
}

#[tokio::test]
async fn other_fingerprint_is_rejected_before_a_call() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    let names_both = |text: &str| assert!(text.contains(A) && text.contains(B), "{text}");
    fleet.embedders[0].take_received();
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[(HEADER, B)], body).await;
        assert_eq!((response.status.as_u16(), response.header(HEADER)), (412, A), "{method} {target}");
        let error = response.json();
        let text = match target {
            "/api/status" => {
                assert_eq!(error["reason"], "FINGERPRINT_MISMATCH");
                &error["detail"]
            }
            target if target.starts_with("/v1") => {
                assert_eq!(error["error"]["code"], "fingerprint_mismatch");
                &error["error"]["message"]
            }
            _ => &error["message"],
        };
        names_both(text.as_str().unwrap());
    }
    let check = |status: Status| {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.metadata().get(HEADER).map(MetadataValue::as_bytes), Some(A.as_bytes()));
        let error = Error::from(&status);
        assert_eq!(error.reason(), Reason::FingerprintMismatch);
        names_both(error.message());
    };
    let mut client = fleet.gateway.embedder();
    check(client.embed(requiring(B, one_sentence())).await.unwrap_err());
    check(client.get_model(requiring(B, GetModelRequest {})).await.unwrap_err());
    // Before an item arrives.
    check(client.embed_stream(requiring(B, stream::pending())).await.unwrap_err());
    // Only `/api/status` asks each embedder for its state.
    assert!(fleet.embedders[0].received() <= 1);
}

#[tokio::test]
async fn malformed_fingerprint_is_invalid() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[(HEADER, "f32")], body).await;
        assert_eq!(response.status, 400, "{method} {target}");
        assert!(String::from_utf8_lossy(&response.body).contains("muse-fingerprint: it must be"));
    }
    let twice = [(HEADER, A), (HEADER, B)];
    assert_eq!(fleet.send("GET", "/embed?sentence=a", &twice, "").await.status, 400);
    let mut client = fleet.gateway.embedder();
    for status in [
        client.embed(requiring("f32", one_sentence())).await.unwrap_err(),
        client.embed_stream(requiring("f32", stream::pending())).await.unwrap_err(),
    ] {
        let error = Error::from(&status);
        assert_eq!((error.reason(), error.field()), (Reason::InvalidArgument, Some(HEADER)));
    }
}

#[tokio::test]
async fn grpc_web_has_the_fingerprint_and_the_precondition() {
    let fleet = Fleet::ready(&[Some(A)]).await;
    let message = "\0\0\0\0\u{3}\n\u{1}a";
    let kind = ("content-type", "application/grpc-web+proto");
    let authorization = format!("Bearer {}", token("access", "a", None));
    let send = async |fingerprint| {
        let headers = [kind, ("authorization", &authorization), (HEADER, fingerprint)];
        fleet.gateway.send_body("POST", "/muse.v1.EmbedderService/Embed", &headers, message).await
    };
    for (required, status) in [(A, "grpc-status:0"), (B, "grpc-status:9"), ("f32", "grpc-status:3")] {
        let response = send(required).await;
        let body = String::from_utf8_lossy(&response.body).replace(": ", ":");
        assert_eq!((response.status, response.header(HEADER)), (StatusCode::OK, A), "{required}");
        assert!(body.contains(status), "{required}: {body}");
    }
}

#[tokio::test]
async fn embedder_with_another_fingerprint_is_unused() {
    let fleet = Fleet::ready(&[Some(A), Some(B), Some(A)]).await;
    until(async || fleet.gauge("muse_embedders_unused").await == Some(1.0)).await;
    until(async || fleet.gauge("muse_embedders_serving").await == Some(2.0)).await;
    fleet.embedders[1].take_received();
    // Retries do not use it, either.
    fleet.embedders[0].respond_with_error(Reason::Unavailable, Duration::from_secs(1));
    for _ in 0..20 {
        assert_eq!(embed(&fleet.gateway, None).await, Ok(3.0));
    }
    // The first one may have recovered.
    for index in [0, 2] {
        fleet.embedders[index].respond_with_error(Reason::Overloaded, Duration::from_secs(1));
    }
    assert_eq!(embed(&fleet.gateway, None).await.unwrap_err().reason(), Reason::Overloaded);
    assert_eq!(fleet.embedders[1].received(), 0);

    let (status, lines) = fleet.readiness().await;
    let unused = format!(
        "the embedder {} is not used: it has the fingerprint {B}, and the fingerprint {A} is served",
        fleet.embedders[1].address
    );
    assert_eq!((status, lines), (StatusCode::OK, vec!["ready".to_owned(), unused]));
    for embedder in &fleet.embedders {
        embedder.respond_with(Behavior::Vectors);
    }
    until(async || fleet.gauge("muse_embedders_serving").await == Some(2.0)).await;
    let status = fleet.status().await;
    let numbers =
        ["embedders_known", "embedders_serving", "embedders_unused"].map(|name| status[name].clone());
    assert_eq!(numbers, [json!(3), json!(2), json!(1)]);
    let mut embedders: Vec<(String, String, bool)> = status["embedders"]
        .as_array()
        .unwrap()
        .iter()
        .map(|embedder| {
            let text = |name: &str| embedder[name].as_str().unwrap().to_owned();
            (text("version"), text("fingerprint"), embedder["used"].as_bool().unwrap())
        })
        .collect();
    embedders.sort();
    let expected = [("1", A, true), ("2", B, false), ("3", A, true)];
    assert_eq!(
        embedders,
        expected.map(|(version, fingerprint, used)| (version.to_owned(), fingerprint.to_owned(), used))
    );
}

#[tokio::test]
async fn crash_of_the_majority_does_not_change_the_model() {
    let mut fleet = Fleet::ready(&[Some(A), Some(A), Some(B)]).await;
    until(async || fleet.gauge("muse_embedders_unused").await == Some(1.0)).await;
    for index in [0, 1] {
        fleet.embedders[index].kill();
    }
    until(async || fleet.readiness().await.0 == StatusCode::SERVICE_UNAVAILABLE).await;
    let (_, lines) = fleet.readiness().await;
    let reason =
        format!("no embedder with the fingerprint {A} serves; others have another model, and are not used");
    assert_eq!(lines[1], reason);
    assert!(lines[2].contains(&fleet.embedders[2].address.to_string()), "{lines:?}");
    // Calls are sent to the crashed embedders, in case they can be reached again.
    assert_eq!(embed(&fleet.gateway, None).await.unwrap_err().reason(), Reason::Unavailable);
    assert_eq!(fleet.embedders[2].received(), 0);
    fleet.replace(0, Some(A)).await;
    fleet.gateway.wait_until_ready().await;
    assert_eq!(embed(&fleet.gateway, None).await, Ok(1.0));
}

/// Calls in parallel, each of which must succeed.
struct Load {
    ended: Arc<AtomicBool>,
    answered: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(fleet: &Fleet, parallel: usize) -> Self {
        let (ended, answered) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let tasks = (0..parallel).map(|_| {
            let (ended, answered) = (Arc::clone(&ended), Arc::clone(&answered));
            let mut client = fleet.gateway.embedder();
            tokio::spawn(async move {
                while !ended.load(Ordering::Relaxed) {
                    let response = client.embed(bearing(&token("access", "a", None), one_sentence())).await;
                    assert!(response.unwrap().metadata().contains_key(HEADER));
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let tasks = tasks.collect();
        Self { ended, answered, tasks }
    }

    /// Waits for more responses.
    async fn wait(&self, count: usize) {
        let enough = self.answered.load(Ordering::Relaxed) + count;
        until(async || {
            assert!(!self.tasks.iter().any(tokio::task::JoinHandle::is_finished), "a call failed");
            self.answered.load(Ordering::Relaxed) >= enough
        })
        .await;
    }

    async fn stop(self) {
        self.ended.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_change_of_the_model_fails_no_call() {
    let mut fleet = Fleet::ready(&[Some(A), Some(A), Some(A)]).await;
    until(async || fleet.gauge("muse_embedders_serving").await == Some(3.0)).await;
    let load = Load::start(&fleet, 4);
    load.wait(50).await;
    for (index, served) in [A, B, B].into_iter().enumerate() {
        fleet.embedders[index].announce_shutdown().await;
        until(async || fleet.healthy().await == 2.0).await;
        load.wait(50).await;
        fleet.replace(index, Some(B)).await;
        until(async || fleet.healthy().await == 3.0).await;
        fleet.wait_until_served(served).await;
        load.wait(50).await;
    }
    load.stop().await;
    until(async || fleet.gauge("muse_embedders_serving").await == Some(3.0)).await;
    assert_eq!(fleet.readiness().await, (StatusCode::OK, vec!["ready".to_owned()]));
    // Nothing of the former model is cached.
    let response = fleet.send("POST", "/v1/embeddings", &[], r#"{"model": "a model", "input": "a"}"#).await;
    assert_eq!(response.json()["system_fingerprint"], B);
    let body = r#"{"model": "a model", "input": "a"}"#;
    assert_eq!(fleet.send("POST", "/v1/embeddings", &[(HEADER, A)], body).await.status, 412);
    assert_eq!(fleet.send("POST", "/v1/embeddings", &[(HEADER, B)], body).await.status, 200);
}

#[tokio::test]
async fn pinned_fingerprint_is_the_only_one_used() {
    let mut fleet = Fleet::start(&[Some(A), Some(A), None], &["--model-fingerprint", B]).await;
    until(async || fleet.gauge("muse_embedders_unused").await == Some(3.0)).await;
    let (status, lines) = fleet.readiness().await;
    let reason = format!("no embedder with the fingerprint {B} serves, which MODEL_FINGERPRINT requires");
    assert_eq!((status, lines[1].as_str()), (StatusCode::SERVICE_UNAVAILABLE, reason.as_str()));
    assert_eq!(lines.len(), 5, "{lines:?}");
    // Until the gateway has the keys of the auth service.
    until(async || embed(&fleet.gateway, None).await.unwrap_err().message() == reason).await;
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[], body).await;
        if target == "/api/status" {
            let status = response.json();
            assert_eq!((response.status, &status["problem"]), (StatusCode::OK, &json!(reason)));
            assert_eq!((&status["model"], &status["embedders_serving"]), (&Value::Null, &json!(0)));
            continue;
        }
        assert_eq!((response.status.as_u16(), response.header("retry-after")), (503, "1"), "{target}");
        assert!(String::from_utf8_lossy(&response.body).contains(&reason), "{target}");
    }
    assert_eq!(embed(&fleet.gateway, None).await.unwrap_err().reason(), Reason::Unavailable);

    fleet.replace(1, Some(B)).await;
    fleet.gateway.wait_until_ready().await;
    assert_eq!(embed(&fleet.gateway, None).await, Ok(2.0));
    assert_eq!(fleet.send("GET", "/v1/models", &[], "").await.header(HEADER), B);
}

#[tokio::test]
async fn restarted_embedder_is_checked_by_its_response() {
    let mut fleet = Fleet::ready(&[Some(A)]).await;
    assert_eq!(embed(&fleet.gateway, None).await, Ok(1.0));
    // The call may arrive before the health check, which then leads to the election of the new model.
    fleet.replace(0, Some(B)).await;
    until(async || match embed(&fleet.gateway, None).await {
        Ok(_) => true,
        Err(error) => {
            assert_eq!(error.reason(), Reason::Unavailable);
            false
        }
    })
    .await;
    let response = fleet.gateway.embedder().embed(bearing(&token("access", "a", None), one_sentence())).await;
    assert_eq!(response.unwrap().metadata().get(HEADER).unwrap(), B);
}

#[tokio::test]
async fn embedders_without_fingerprints_are_one_model() {
    let fleet = Fleet::ready(&[None, None, Some(A)]).await;
    until(async || fleet.gauge("muse_embedders_unused").await == Some(1.0)).await;
    for _ in 0..10 {
        assert_ne!(embed(&fleet.gateway, None).await, Ok(3.0));
    }
    for (method, target, body) in ROUTES {
        let response = fleet.send(method, target, &[], body).await;
        assert_eq!((response.status, response.header(HEADER)), (StatusCode::OK, ""), "{method} {target}");
        let response = fleet.send(method, target, &[(HEADER, A)], body).await;
        assert_eq!((response.status.as_u16(), response.header(HEADER)), (412, ""), "{method} {target}");
    }
    let response = fleet.send("POST", "/v1/embeddings", &[], r#"{"model": "a model", "input": "a"}"#).await;
    assert_eq!(response.json().get("system_fingerprint"), None);
    assert_eq!(fleet.send("GET", "/v1/models", &[], "").await.json()["data"][0]["fingerprint"], Value::Null);
}

#[tokio::test]
async fn open_stream_stays_with_its_model() {
    let mut fleet = Fleet::ready(&[Some(A), Some(A)]).await;
    until(async || fleet.gauge("muse_embedders_serving").await == Some(2.0)).await;
    let open = async |client: &mut muse_proto::v1::embedder_service_client::EmbedderServiceClient<_>| {
        let (items, received) = futures::channel::mpsc::unbounded();
        let response = client.embed_stream(bearing(&token("access", "a", None), received)).await.unwrap();
        assert_eq!(response.metadata().get(HEADER).unwrap(), A);
        (items, response.into_inner())
    };
    let item = || EmbedStreamRequest { id: "a".to_owned(), sentence: "a".to_owned() };
    let mut client = fleet.gateway.embedder();
    let (waiting_items, mut waiting) = open(&mut client).await;
    let (items, mut stream) = open(&mut client).await;
    items.unbounded_send(item()).unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    // The other embedder gets the new model, and this one announces its shutdown.
    let own = usize::from(fleet.embedders[0].received() == 0);
    fleet.replace(1 - own, Some(B)).await;
    fleet.embedders[own].announce_shutdown().await;
    fleet.wait_until_served(B).await;
    items.unbounded_send(item()).unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    // The head of this stream has announced the former model, whose last embedder still accepts calls.
    waiting_items.unbounded_send(item()).unwrap();
    assert!(waiting.next().await.unwrap().is_ok());
    let (late_items, mut late) = {
        let (items, received) = futures::channel::mpsc::unbounded();
        let response = client.embed_stream(bearing(&token("access", "a", None), received)).await.unwrap();
        assert_eq!(response.metadata().get(HEADER).unwrap(), B);
        (items, response.into_inner())
    };
    late_items.unbounded_send(item()).unwrap();
    assert!(late.next().await.unwrap().is_ok());
}
