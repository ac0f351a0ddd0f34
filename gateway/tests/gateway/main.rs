//! A gateway with fake services behind it.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

mod api_keys;
mod balancer;
mod credentials;
mod fake_embedder;
mod fingerprints;
mod harness;
mod isolation;
mod page;
mod quotas;
mod requests;
mod security_headers;
mod usage;
mod users;

use std::time::{Duration, Instant};

use futures::stream;
use http::{StatusCode, uri::PathAndQuery};
use muse_proto::{
    Codec, Error, Reason,
    v1::{EmbedRequest, EmbedResponse, LoginRequest, RevokeTokenRequest},
};
use serde_json::json;
use tonic::{Request, client::Grpc};

use harness::{Backend, Gateway, token};

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn login(username: &str) -> LoginRequest {
    LoginRequest { username: username.to_owned(), password: "x".to_owned() }
}

#[tokio::test]
async fn auth_receives_the_peer_address_not_the_one_a_client_claims() {
    let backend = Backend::start().await;
    for (options, expected) in
        [(&[][..], "127.0.0.1"), (&["--trusted-proxies", "127.0.0.0/8"], "198.51.100.7")]
    {
        let gateway = Gateway::ready(&backend, options).await;
        let client_headers =
            [("x-forwarded-for", "203.0.113.1"), ("x-forwarded-for", "203.0.113.2, 198.51.100.7")];
        let response = gateway.send("POST", "/login?username=a&password=x", &client_headers).await;
        assert_eq!(response.status, StatusCode::OK);
        assert_eq!(backend.take_received().forwarded_for, [expected]);

        let mut call = Request::new(login("a"));
        for (name, value) in client_headers {
            call.metadata_mut().append(name, value.parse().unwrap());
        }
        gateway.auth().login(call).await.unwrap();
        assert_eq!(backend.take_received().forwarded_for, [expected]);

        let authorization = [("authorization", &*format!("Bearer {}", token("refresh", "r", None)))];
        gateway.send("POST", "/token/refresh", &[client_headers[1], authorization[0]]).await;
        assert_eq!(backend.take_received().forwarded_for, [expected]);
    }
}

#[tokio::test]
async fn throttled_login_returns_retry_after() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let response = gateway.send("POST", "/login?username=impatient&password=x", &[]).await;
    let shown = (response.status.as_u16(), response.header("retry-after"), response.json());
    let body = json!({ "message": "too many attempts", "reason": "TOO_MANY_ATTEMPTS" });
    assert_eq!(shown, (429, "31", body));
    let rejected = Error::from(&gateway.auth().login(login("impatient")).await.unwrap_err());
    let wait = Duration::from_millis(30_100);
    assert_eq!(rejected, Error::new(Reason::TooManyAttempts, "too many attempts").with_retry_after(wait));
}

#[tokio::test]
async fn token_is_forwarded_to_the_embedder() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let authorization = format!("bearer {}", token("access", "a", None));
    let response = gateway.send("GET", "/embed?sentence=a", &[("authorization", &authorization)]).await;
    assert_eq!(response.json(), json!({ "embedding": [[1.0]] }));
    assert_eq!(backend.take_received().authorization, [authorization]);
}

#[tokio::test]
async fn call_without_its_message_times_out() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--call-timeout", "1"]).await;
    let mut client = Grpc::new(gateway.channel());
    client.ready().await.unwrap();
    let call = bearing(&token("access", "a", None), stream::pending::<EmbedRequest>());
    let path = PathAndQuery::from_static("/muse.v1.EmbedderService/Embed");
    let response = client.client_streaming(call, path, Codec::<EmbedRequest, EmbedResponse>::default());
    let rejected = Error::from(&response.await.unwrap_err());
    let expected = Error::new(Reason::InvalidArgument, "the message did not come in time");
    assert_eq!(rejected, expected);
}

#[tokio::test]
async fn refresh_tokens_rotate_and_family_is_revoked_at_once() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    for (user, over_grpc) in [("f", true), ("g", false)] {
        let tokens: Vec<String> = [("access", "1"), ("refresh", "2"), ("refresh", "3")]
            .map(|(kind, id)| token(kind, &format!("{user}{id}"), Some(user)))
            .to_vec();
        let refresh = || gateway.send_as(&tokens[1], "POST", "/token/refresh");
        let embed = || gateway.send_as(&tokens[0], "GET", "/embed?sentence=a");
        assert_eq!(refresh().await.json()["refresh_token"], "a new one");
        assert_eq!(embed().await.status, StatusCode::OK);
        if over_grpc {
            gateway.auth().revoke_token(bearing(&tokens[2], RevokeTokenRequest {})).await.unwrap();
        } else {
            let response = gateway.send_as(&tokens[2], "POST", "/logout/refresh").await;
            assert_eq!(response.status, StatusCode::OK);
        }
        // The backend sends no revocations.
        assert_eq!(embed().await.json(), json!({ "msg": "Token has been revoked" }));
        assert_eq!(refresh().await.status, StatusCode::UNAUTHORIZED);
    }
    let response = gateway.send_as(&token("refresh", "x", None), "POST", "/token/refresh").await;
    assert_eq!((response.status, response.json().get("refresh_token")), (StatusCode::OK, None));
}

#[tokio::test]
async fn jwks_is_unavailable_until_keys_are_known() {
    let backend = Backend::start().await;
    backend.stop_sending();
    let gateway = Gateway::start(&backend, &[]).await;
    let response = gateway.send("GET", "/.well-known/jwks.json", &[]).await;
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (503, "1"));
    backend.resume_sending();
    gateway.wait_until_ready().await;
    let response = gateway.send("GET", "/.well-known/jwks.json", &[]).await;
    assert_eq!(response.json()["keys"][0]["kid"], harness::KID);
}

#[tokio::test]
async fn tokens_are_valid_for_max_staleness_without_auth() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--max-staleness", "2"]).await;
    let token = token("access", "a", None);
    let embed = || gateway.send_as(&token, "GET", "/embed?sentence=a");

    // During a call, and afterwards.
    let login_path = "/login?username=hanging&password=x";
    let (hanging, ()) = tokio::join!(gateway.send("POST", login_path, &[]), async {
        backend.wait_for_login().await;
        backend.stop_auth();
    });
    assert_eq!((hanging.status.as_u16(), hanging.header("retry-after")), (503, "1"));
    let start = Instant::now();
    let response = gateway.send("POST", login_path, &[]).await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (503, "1"));
    assert!(response.json()["message"].is_string());
    let rejected = Error::from(&gateway.auth().login(login("a")).await.unwrap_err());
    assert_eq!(
        (rejected.reason(), rejected.retry_after()),
        (Reason::Unavailable, Some(Duration::from_secs(1)))
    );

    assert_eq!(embed().await.status, StatusCode::OK);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let response = embed().await;
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (503, "1"));
    let call = bearing(&token, EmbedRequest { sentences: vec!["a".to_owned()], ..EmbedRequest::default() });
    let rejected = Error::from(&gateway.embedder().embed(call).await.unwrap_err());
    assert_eq!(
        (rejected.reason(), rejected.retry_after()),
        (Reason::Unavailable, Some(Duration::from_secs(1)))
    );

    backend.start_auth().await;
    let deadline = Instant::now() + Duration::from_secs(10);
    while embed().await.status != StatusCode::OK {
        assert!(Instant::now() < deadline, "the auth service is not connected in time");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.auth().login(login("a")).await.unwrap();
}
