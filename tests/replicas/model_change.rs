//! A rolling change of the model: the embedders are replaced one after the other by some with another fingerprint.

use std::net::SocketAddr;

use muse_proto::{
    Error, FINGERPRINT, Reason,
    v1::{EmbedRequest, embedder_service_client::EmbedderServiceClient},
};
use muse_tests::{
    bearing, channel, http_client::HttpClient, login, model_dir, model_with_other_weights, program::Program,
    until,
};
use serde_json::Value;

use crate::{FREE, load::Load, serial};

/// The fingerprint in the response to a call, which may require one.
async fn embed(gateway: SocketAddr, token: &str, required: Option<&str>) -> Result<String, Error> {
    let request = EmbedRequest { sentences: vec!["Hello".to_owned()], ..EmbedRequest::default() };
    let mut call = bearing(token, request);
    if let Some(required) = required {
        call.metadata_mut().insert("muse-fingerprint", required.parse().expect("a fingerprint is ASCII"));
    }
    let response = EmbedderServiceClient::new(channel(gateway)).embed(call).await;
    let response = response.map_err(|status| Error::from(&status))?;
    let reported = response.metadata().get(FINGERPRINT.as_str()).expect("each response has a fingerprint");
    Ok(reported.to_str().expect("a fingerprint is ASCII").to_owned())
}

async fn status(gateway: SocketAddr, token: &str) -> Value {
    HttpClient::new(gateway).get("/api/status", token).await.json()
}

/// Waits until the gateway has checked the health of all embedders, and returns the numbers of those that it uses and does not use.
async fn used(gateway: SocketAddr, token: &str, embedders: u64) -> (u64, u64) {
    until(async || {
        let status = status(gateway, token).await;
        let [used, unused] = ["embedders_serving", "embedders_unused"].map(|name| status[name].as_u64());
        let (used, unused) = (used?, unused?);
        (used + unused == embedders).then_some((used, unused))
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn rolling_change_of_the_model_loses_no_call() {
    let _guard = serial().await;
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (former, new) = (model_dir(), other.path());
    let new_fingerprint = model_with_other_weights(new);
    let auth = Program::auth(FREE, data.path()).await;
    let mut embedders = Vec::new();
    for _ in 0..3 {
        let embedder = Program::embedder_with(FREE, auth.address, &former).await;
        embedder.ready().await;
        embedders.push(embedder);
    }
    let addresses: Vec<SocketAddr> = embedders.iter().map(|embedder| embedder.address).collect();
    let gateway = Program::gateway(FREE, auth.address, &addresses, &[]).await;
    gateway.ready().await;
    let token = login(channel(gateway.address)).await.access_token;
    let former_fingerprint = embed(gateway.address, &token, None).await.unwrap();
    assert_ne!(former_fingerprint, new_fingerprint);
    assert_eq!(used(gateway.address, &token, 3).await, (3, 0));
    let load = Load::start(&[gateway.address], &token, 4);
    load.wait_for_answers(50).await;

    for (address, expected) in addresses.iter().zip([(2, 1), (2, 1), (3, 0)]) {
        embedders.remove(0).stop().await;
        load.wait_for_answers(20).await;
        let embedder = Program::embedder_with(*address, auth.address, new).await;
        embedder.ready().await;
        embedders.push(embedder);
        assert_eq!(used(gateway.address, &token, 3).await, expected);
        load.wait_for_answers(50).await;
    }
    load.stop().await;
    assert_eq!(embed(gateway.address, &token, Some(&new_fingerprint)).await, Ok(new_fingerprint.clone()));
    let mismatch = embed(gateway.address, &token, Some(&former_fingerprint)).await.unwrap_err();
    assert_eq!(mismatch.reason(), Reason::FingerprintMismatch);

    // One embedder changes back, and the others crash: the model does not change.
    embedders.remove(0).stop().await;
    let embedder = Program::embedder_with(addresses[0], auth.address, &former).await;
    embedder.ready().await;
    assert_eq!(used(gateway.address, &token, 3).await, (2, 1));
    for crashed in embedders.drain(..) {
        crashed.signal("-KILL");
        crashed.ended().await;
    }
    for _ in 0..5 {
        let error = embed(gateway.address, &token, None).await.unwrap_err();
        assert_eq!(error.reason(), Reason::Unavailable);
    }
    let restarted = Program::embedder_with(addresses[1], auth.address, new).await;
    restarted.ready().await;
    let served = until(async || embed(gateway.address, &token, None).await.ok()).await;
    assert_eq!(served, new_fingerprint);

    for program in [gateway, embedder, restarted, auth] {
        program.stop().await;
    }
}
