//! Unavailable services, full queues, and cancelled calls.

use std::time::Duration;

use muse_proto::{
    Error, Reason,
    v1::{
        EmbedRequest, LoginRequest, auth_service_client::AuthServiceClient,
        embedder_service_client::EmbedderServiceClient,
    },
};
use muse_tests::{
    Service, Stack, auth_config, bearing, channel, embedder_config, golden_sentences,
    http_client::HttpClient, login, model_dir, start_auth, start_embedder, start_gateway, until,
    wait_until_serving,
};
use tonic::Code;

use crate::{reason, sentences, tokens::until_rejected};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_outlive_an_auth_outage_up_to_the_max_staleness() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let address = auth.address;
    let embedder = start_embedder(&model_dir(), address, &[]).await;
    let gateway = start_gateway(address, embedder.address, &["--max-staleness", "3"]).await;
    wait_until_serving(channel(gateway.address)).await;
    let token = login(channel(gateway.address)).await.access_token;
    let mut client = EmbedderServiceClient::new(channel(gateway.address));
    let rest = HttpClient::new(gateway.address);
    auth.stop().await;

    client.embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    let request = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
    let rejected = AuthServiceClient::new(channel(gateway.address)).login(request).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unavailable, Reason::Unavailable));
    assert!(Error::from(&rejected).retry_after().is_some(), "{rejected}");
    let answer = rest.send("POST", "/login?username=admin&password=admin", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));
    assert!(answer.json()["message"].is_string());

    let rejected = until_rejected(&token, gateway.address).await;
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unavailable, Reason::Unavailable));
    assert!(rejected.message().contains("for too long"), "{rejected}");
    let answer = rest.get("/embed?sentence=a", &token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));

    let config = auth_config(data.path());
    let auth =
        Service::start_at(address, |listeners, shutdown| muse_auth::run(config, listeners, shutdown)).await;
    until(async || client.embed(bearing(&token, sentences(&["a"]))).await.ok()).await;
    login(channel(gateway.address)).await;
    gateway.stop().await;
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn embedder_outage_fails_calls_at_once_until_it_is_back() {
    let Stack { data, auth, embedder, gateway } = Stack::start().await;
    let address = embedder.address;
    embedder.stop().await;
    let mut client = EmbedderServiceClient::new(channel(gateway.address));
    let token = login(channel(gateway.address)).await.access_token;
    let rejected = client.embed(bearing(&token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unavailable, Reason::Unavailable));
    let rest = HttpClient::new(gateway.address);
    let answer = rest.get("/embed?sentence=a", &token).await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));

    let config = embedder_config(&model_dir(), auth.address, &[]);
    let embedder =
        Service::start_at(address, |listeners, shutdown| muse_embedder::run(config, listeners, shutdown))
            .await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    client.embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn full_queue_rejects_requests_and_drains() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "8000"]).await;
    wait_until_serving(channel(embedder.address)).await;
    let token = login(channel(auth.address)).await.access_token;
    let request = EmbedRequest {
        sentences: vec!["one two three four five six".to_owned(); 400],
        ..EmbedRequest::default()
    };
    let calls = (0..16).map(|_| {
        let mut client = EmbedderServiceClient::new(channel(embedder.address));
        let request = bearing(&token, request.clone());
        async move { client.embed(request).await }
    });
    let outcomes = futures::future::join_all(calls).await;
    let served = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
    assert!((1..16).contains(&served), "{served} of 16 were served");
    for rejected in outcomes.iter().filter_map(|outcome| outcome.as_ref().err()) {
        assert_eq!((rejected.code(), reason(rejected)), (Code::ResourceExhausted, Reason::Overloaded));
    }
    let mut client = EmbedderServiceClient::new(channel(embedder.address));
    client.embed(bearing(&token, request)).await.unwrap();
    embedder.stop().await;
    auth.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_do_not_harm_the_service() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let texts: Vec<String> = golden_sentences().into_iter().map(|line| line.text).collect();
    for _ in 0..20 {
        let mut client = stack.embedder_client();
        let call = client
            .embed(bearing(&token, EmbedRequest { sentences: texts.clone(), ..EmbedRequest::default() }));
        let _ = tokio::time::timeout(Duration::from_millis(5), call).await;
    }
    let answer = stack.embedder_client().embed(bearing(&token, sentences(&["a"]))).await.unwrap();
    assert_eq!(answer.into_inner().embeddings.len(), 1);
    stack.stop().await;
}
