//! Quotas: the headers with the state of the caller's quota, and the errors of an exhausted one.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, EmbedStreamRequest, GetModelRequest, QuotaState},
};
use serde_json::json;
use tonic::Response;

use crate::{
    bearing,
    fake_embedder::EXHAUSTING,
    harness::{Backend, Gateway, HttpResponse, token, token_of},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const ONE: &str = "/embed?sentence=a";

fn quota(limit: u64) -> QuotaState {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    QuotaState { username: "a".to_owned(), limit, used: 30, resets_at: now + 3_700, ..QuotaState::default() }
}

fn headers_of(response: &HttpResponse) -> [String; 3] {
    ["limit", "remaining", "reset"]
        .map(|name| response.header(&format!("x-ratelimit-{name}-tokens")).to_owned())
}

fn is_state(headers: [String; 3], limit: &str, remaining: &str) -> bool {
    let [found_limit, found_remaining, reset] = headers;
    (&*found_limit, &*found_remaining) == (limit, remaining)
        && reset.starts_with("1h1m")
        && reset.ends_with('s')
}

/// A gateway on which the user `a` has a quota.
async fn gateway_with(backend: &Backend, state: QuotaState, options: &[&str]) -> Gateway {
    let gateway = Gateway::ready(backend, options).await;
    let access = token("access", "t", None);
    assert_eq!(headers_of(&gateway.send_as(&access, "GET", ONE).await), [""; 3], "there is no quota");
    *backend.quotas.lock().unwrap() = vec![state];
    let deadline = Instant::now() + Duration::from_secs(10);
    while headers_of(&gateway.send_as(&access, "GET", ONE).await) == [""; 3] {
        assert!(Instant::now() < deadline, "the quota arrives");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    gateway
}

fn grpc_headers<T>(result: Result<Response<T>, tonic::Status>) -> [String; 3] {
    let metadata =
        result.map_or_else(|status| status.metadata().clone(), |response| response.metadata().clone());
    ["limit", "remaining", "reset"].map(|name| {
        let value = metadata.get(format!("x-ratelimit-{name}-tokens"));
        value.map_or_else(String::new, |value| value.to_str().unwrap().to_owned())
    })
}

#[tokio::test]
async fn each_response_to_a_caller_has_the_state_of_the_quota() {
    let backend = Backend::start().await;
    let gateway = gateway_with(&backend, quota(100), &["--cors-origins", "https://example.org"]).await;
    let access = token("access", "t", None);
    // Errors, too.
    for (method, path, status) in
        [("GET", ONE, 200), ("GET", "/embed", 400), ("GET", "/nothing", 404), ("PUT", "/embed", 405)]
    {
        let response = gateway.send_as(&access, method, path).await;
        assert_eq!(response.status.as_u16(), status, "{path}");
        assert!(is_state(headers_of(&response), "100", "70"), "{path}: {:?}", headers_of(&response));
    }
    let models = gateway.send_as(&access, "GET", "/v1/models").await;
    assert!(is_state(headers_of(&models), "100", "70"));
    let cookie = format!("access_token_cookie={access}");
    let with_cookie = gateway.send("GET", ONE, &[("cookie", &cookie)]).await;
    assert!(is_state(headers_of(&with_cookie), "100", "70"));
    let authorization = format!("Bearer {access}");
    let page = gateway
        .send("GET", ONE, &[("authorization", &authorization), ("origin", "https://example.org")])
        .await;
    assert!(page.header("access-control-expose-headers").contains("x-ratelimit-remaining-tokens"));
    assert!(page.header("access-control-expose-headers").contains("x-should-retry"));

    let mut embedder = gateway.embedder();
    let sentence = || EmbedRequest { sentences: vec!["x".to_owned()], ..EmbedRequest::default() };
    assert!(is_state(grpc_headers(embedder.embed(bearing(&access, sentence())).await), "100", "70"));
    let failed = embedder.embed(bearing(&token("refresh", "r", None), sentence())).await;
    assert!(is_state(grpc_headers(failed), "100", "70"));
    assert!(is_state(
        grpc_headers(embedder.get_model(bearing(&access, GetModelRequest {})).await),
        "100",
        "70"
    ));
    let items = futures::stream::pending::<EmbedStreamRequest>();
    assert!(is_state(grpc_headers(embedder.embed_stream(bearing(&access, items)).await), "100", "70"));

    // Not to others.
    let other = token_of("b", "access", "t", None);
    assert_eq!(headers_of(&gateway.send_as(&other, "GET", ONE).await), [""; 3]);
    assert_eq!(headers_of(&gateway.send("GET", ONE, &[]).await), [""; 3]);
}

#[tokio::test]
async fn exhausted_quota_is_429_that_is_not_retried() {
    let backend = Backend::start().await;
    let gateway = gateway_with(&backend, quota(20), &[]).await;
    let access = token("access", "t", None);
    let authorization = format!("Bearer {access}");
    let headers = [("authorization", &*authorization), JSON];
    let check = |response: &HttpResponse| {
        let found = ["retry-after", "x-should-retry"].map(|name| response.header(name).to_owned());
        assert_eq!((response.status.as_u16(), found), (429, ["7200", "false"].map(str::to_owned)));
        assert!(is_state(headers_of(response), "20", "0"));
    };
    let rest = gateway.send_as(&access, "GET", &format!("/embed?sentence={EXHAUSTING}")).await;
    check(&rest);
    let body = json!({ "message": "the quota is exhausted", "reason": "QUOTA_EXHAUSTED" });
    assert_eq!(rest.json(), body);

    let body = json!({ "model": "a model", "input": EXHAUSTING }).to_string();
    let openai = gateway.send_body("POST", "/v1/embeddings", &headers, &body).await;
    check(&openai);
    let error = &openai.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("insufficient_quota"), &json!("insufficient_quota"))
    );
    assert_eq!(error["message"], "the quota is exhausted");

    let sentences = vec![EXHAUSTING.to_owned()];
    let call = bearing(&access, EmbedRequest { sentences, ..EmbedRequest::default() });
    let status = gateway.embedder().embed(call).await.unwrap_err();
    let error = Error::from(&status);
    assert_eq!(error.reason(), Reason::QuotaExhausted);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7_200)));
    // The gateway does not enforce the quota: only the embedder counts rejections.
    assert_eq!(gateway.send_as(&access, "GET", ONE).await.status, 200);
}
