//! The fingerprint of the real model: reported by the embedder and the gateway, and required by calls.

use muse_model::{model_dir::ModelDir, precision::Precision};
use muse_proto::{
    Error, FINGERPRINT, Reason,
    v1::{
        EmbedRequest, EmbedStreamRequest, GetModelRequest, GetStatusRequest, TokenizeRequest,
        embedder_service_client::EmbedderServiceClient,
    },
};
use muse_tests::{Stack, bearing, channel, http_client::HttpClient, model_dir};
use serde_json::json;
use tonic::{Code, Request, Status, metadata::MetadataMap};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const OTHER: &str = "f32-000000000000";

fn reported(metadata: &MetadataMap) -> &str {
    metadata.get(FINGERPRINT.as_str()).map_or("", |value| value.to_str().expect("a fingerprint is ASCII"))
}

fn requiring<T>(token: &str, fingerprint: &str, message: T) -> Request<T> {
    let mut call = bearing(token, message);
    let value = fingerprint.parse().expect("a fingerprint is ASCII");
    call.metadata_mut().insert("muse-fingerprint", value);
    call
}

fn sentences() -> Vec<String> {
    vec!["Where is the library?".to_owned()]
}

fn to_embed() -> EmbedRequest {
    EmbedRequest { sentences: sentences(), ..EmbedRequest::default() }
}

fn items() -> impl futures::Stream<Item = EmbedStreamRequest> + Send + 'static {
    futures::stream::iter([EmbedStreamRequest { id: "a".to_owned(), sentence: "a".to_owned() }])
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_and_gateway_report_the_fingerprint() {
    let expected = ModelDir::open(model_dir()).unwrap().manifest().fingerprint(Precision::F32);
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    for address in [stack.embedder.address, stack.gateway.address] {
        let mut client = EmbedderServiceClient::new(channel(address));
        let response = client.embed(bearing(&token, to_embed())).await.unwrap();
        assert_eq!(reported(response.metadata()), expected);
        let response = client.tokenize(bearing(&token, TokenizeRequest { sentences: sentences() })).await;
        assert_eq!(reported(response.unwrap().metadata()), expected);
        let response = client.embed_stream(bearing(&token, items())).await.unwrap();
        assert_eq!(reported(response.metadata()), expected);
        let response = client.get_status(bearing(&token, GetStatusRequest {})).await.unwrap();
        assert_eq!(reported(response.metadata()), expected);
        let response = client.get_model(bearing(&token, GetModelRequest {})).await.unwrap();
        assert_eq!(reported(response.metadata()), expected);
        assert_eq!(response.into_inner().fingerprint, expected);
        // In errors, too.
        let denied = client.embed(to_embed()).await.unwrap_err();
        assert_eq!((denied.code(), reported(denied.metadata())), (Code::Unauthenticated, &*expected));
        let invalid = client.embed(bearing(&token, EmbedRequest::default())).await.unwrap_err();
        assert_eq!((invalid.code(), reported(invalid.metadata())), (Code::InvalidArgument, &*expected));
    }
    let request = HealthCheckRequest { service: String::new() };
    let mut health = HealthClient::new(channel(stack.embedder.address));
    let response = health.check(request.clone()).await.unwrap();
    assert_eq!(reported(response.metadata()), expected);
    assert_eq!(reported(health.watch(request).await.unwrap().metadata()), expected);

    let http = HttpClient::new(stack.gateway.address);
    let body = json!({ "model": "text-embedding-3-small", "input": "a" });
    let response = http.json("POST", "/v1/embeddings", &token, &body).await;
    assert_eq!(
        (response.header(FINGERPRINT.as_str()), response.text_of("system_fingerprint")),
        (&*expected, expected.clone())
    );
    let response = http.get("/api/status", &token).await.json();
    assert_eq!(
        (&response["model"]["fingerprint"], &response["embedders"][0]["fingerprint"]),
        (&json!(expected), &json!(expected))
    );
    let metrics = HttpClient::new(stack.embedder.admin_port).send("GET", "/metrics", &[], "").await;
    let label = format!("fingerprint=\"{expected}\"");
    assert!(String::from_utf8_lossy(&metrics.body).contains(&label));
    stack.stop().await;
}

/// The counters of the embedder that any work increases.
async fn work(stack: &Stack) -> Vec<String> {
    let metrics = HttpClient::new(stack.embedder.admin_port).send("GET", "/metrics", &[], "").await;
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    let counters = [
        "muse_sentences_total",
        "muse_tokens_total",
        "muse_tokenize_duration_seconds_count",
        "muse_usage_pending",
    ];
    let lines = text.lines().filter(|line| counters.iter().any(|name| line.starts_with(name)));
    lines.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_fingerprint_is_rejected_before_any_work() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let check = |rejected: Status, reason: Reason| {
        let error = Error::from(&rejected);
        assert_eq!((rejected.code(), error.reason()), (reason.code(), reason), "{rejected}");
        let own = reported(rejected.metadata());
        if reason == Reason::FingerprintMismatch {
            assert!(error.message().contains(OTHER) && error.message().contains(own), "{error}");
        }
        assert!(own.starts_with("f32-"), "{own}");
    };
    let before = work(&stack).await;
    assert!(before.len() >= 4, "{before:?}");
    for address in [stack.embedder.address, stack.gateway.address] {
        let mut client = EmbedderServiceClient::new(channel(address));
        for (required, reason) in [(OTHER, Reason::FingerprintMismatch), ("f32", Reason::InvalidArgument)] {
            check(client.embed(requiring(&token, required, to_embed())).await.unwrap_err(), reason);
            let call = requiring(&token, required, TokenizeRequest { sentences: sentences() });
            check(client.tokenize(call).await.unwrap_err(), reason);
            check(client.embed_stream(requiring(&token, required, items())).await.unwrap_err(), reason);
            check(
                client.get_model(requiring(&token, required, GetModelRequest {})).await.unwrap_err(),
                reason,
            );
        }
        // The credential is checked first.
        let denied = client.embed(requiring("none", OTHER, to_embed())).await.unwrap_err();
        assert_eq!(denied.code(), Code::Unauthenticated);
    }
    assert_eq!(work(&stack).await, before);

    let own = ModelDir::open(model_dir()).unwrap().manifest().fingerprint(Precision::F32);
    for address in [stack.embedder.address, stack.gateway.address] {
        let mut client = EmbedderServiceClient::new(channel(address));
        assert!(client.embed(requiring(&token, &own, to_embed())).await.is_ok());
        let mut responses = client.embed_stream(requiring(&token, &own, items())).await.unwrap().into_inner();
        assert!(responses.message().await.unwrap().is_some());
    }
    assert_ne!(work(&stack).await, before);
    // The health service has no precondition.
    let mut call = Request::new(HealthCheckRequest { service: String::new() });
    call.metadata_mut().insert("muse-fingerprint", OTHER.parse().unwrap());
    assert!(HealthClient::new(channel(stack.embedder.address)).check(call).await.is_ok());
    stack.stop().await;
}
