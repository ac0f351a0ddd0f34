//! API keys as credentials, and the routes that manage them.

use std::time::{Duration, Instant};

use http::StatusCode;
use muse_proto::{
    Error, Reason,
    v1::{
        DescribeKeyRequest, EmbedRequest, GetModelRequest, ListUsersRequest, RevokeTokenRequest,
        VerifiableKey, key_service_client::KeyServiceClient, user_service_client::UserServiceClient,
    },
};
use muse_verifier::api_keys::{KeyId, SECRET_BYTES, compose};
use serde_json::json;

use crate::{
    bearing,
    harness::{Backend, Gateway, HttpResponse, token},
};

const JSON: (&str, &str) = ("content-type", "application/json");

/// A key of the user `a`, and what verifiers get of it.
fn api_key(number: u8) -> (String, VerifiableKey) {
    let id = KeyId::new(u64::from(number) << 40);
    let (text, digest) = compose(id, &[number; SECRET_BYTES]);
    let owner = "a".to_owned();
    (text, VerifiableKey { id: id.number(), digest: digest.to_vec(), owner, ..VerifiableKey::default() })
}

/// A gateway that knows a key.
async fn gateway_with(backend: &Backend, key: &VerifiableKey, text: &str, options: &[&str]) -> Gateway {
    backend.api_keys.lock().unwrap().push(key.clone());
    let gateway = Gateway::ready(backend, options).await;
    until(&gateway, text, StatusCode::OK).await;
    gateway
}

async fn until(gateway: &Gateway, key: &str, status: StatusCode) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while gateway.send_as(key, "GET", "/embed?sentence=a").await.status != status {
        assert!(Instant::now() < deadline, "it stays as it is");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn openai(gateway: &Gateway, key: &str) -> HttpResponse {
    let authorization = format!("Bearer {key}");
    let body = json!({ "model": "a model", "input": "x" }).to_string();
    gateway.send_body("POST", "/v1/embeddings", &[("authorization", &authorization), JSON], &body).await
}

fn sentence() -> EmbedRequest {
    EmbedRequest { sentences: vec!["x".to_owned()], ..EmbedRequest::default() }
}

#[tokio::test]
async fn key_is_accepted_on_all_protocols() {
    let backend = Backend::start().await;
    let (key, message) = api_key(1);
    let gateway = gateway_with(&backend, &message, &key, &[]).await;
    assert_eq!(
        backend.take_received().authorization,
        [format!("Bearer {key}")],
        "it is verified again behind"
    );
    assert_eq!(openai(&gateway, &key).await.status, StatusCode::OK);
    assert_eq!(gateway.send_as(&key, "GET", "/v1/models").await.status, StatusCode::OK);
    gateway.embedder().embed(bearing(&key, sentence())).await.unwrap();
    gateway.embedder().get_model(bearing(&key, GetModelRequest {})).await.unwrap();
    let described = gateway.send_as(&key, "GET", "/api/key").await;
    assert_eq!((described.status, &described.json()["id"]), (StatusCode::OK, &json!("presented")));
    let mut keys = KeyServiceClient::new(gateway.channel());
    keys.describe_key(bearing(&key, DescribeKeyRequest {})).await.unwrap();
    let cookie = format!("access_token_cookie={key}");
    let in_a_cookie = gateway.send("GET", "/embed?sentence=a", &[("cookie", &cookie)]).await;
    assert_eq!(in_a_cookie.status, StatusCode::FORBIDDEN, "cookies contain tokens");
    for in_a_url in ["/embed?sentence=a&api_key=KEY", "/embed?sentence=a&authorization=Bearer%20KEY"] {
        let response = gateway.send("GET", &in_a_url.replace("KEY", &key), &[]).await;
        assert_eq!(response.status, StatusCode::UNAUTHORIZED, "a key in a URL does not count");
    }
}

#[tokio::test]
async fn rejected_key_is_401_with_the_cause_on_all_protocols() {
    let backend = Backend::start().await;
    let (key, message) = api_key(1);
    let gateway = gateway_with(&backend, &message, &key, &[]).await;
    let typo = format!("{}{}", &key[..key.len() - 1], if key.ends_with('a') { 'b' } else { 'a' });
    let check = async |key: &str, expected: Reason| {
        let rejected = gateway.embedder().embed(bearing(key, sentence())).await.unwrap_err();
        let rejected = Error::from(&rejected);
        assert_eq!(rejected.reason(), expected);
        let text = rejected.message();
        assert!(!text.contains("muse_"), "{text}");
        let rest = gateway.send_as(key, "GET", "/embed?sentence=a").await;
        assert_eq!((rest.status.as_u16(), rest.json()), (401, json!({ "msg": text })));
        let openai = openai(&gateway, key).await;
        let error = &openai.json()["error"];
        assert_eq!(
            (openai.status.as_u16(), &error["message"], &error["code"]),
            (401, &json!(text), &json!("invalid_api_key"))
        );
        let own = gateway.send_as(key, "GET", "/api/key").await;
        assert_eq!((own.status.as_u16(), own.header("www-authenticate")), (401, "Bearer"));
        assert_eq!(own.json()["reason"], json!(expected.as_str()));
        text.to_owned()
    };
    let mut texts =
        vec![check(&typo, Reason::KeyMalformed).await, check(&api_key(2).0, Reason::KeyUnknown).await];
    for (changed, expected) in [
        (VerifiableKey { disabled: true, ..message.clone() }, Reason::KeyDisabled),
        (VerifiableKey { expires_at: 1, ..message.clone() }, Reason::KeyExpired),
        (VerifiableKey { digest: Vec::new(), deleted: true, ..message.clone() }, Reason::KeyRevoked),
    ] {
        *backend.api_keys.lock().unwrap() = vec![message.clone()];
        until(&gateway, &key, StatusCode::OK).await;
        *backend.api_keys.lock().unwrap() = vec![changed];
        until(&gateway, &key, StatusCode::UNAUTHORIZED).await;
        texts.push(check(&key, expected).await);
    }
    texts.sort_unstable();
    texts.dedup();
    assert_eq!(texts.len(), 5, "{texts:?}");
}

#[tokio::test]
async fn key_permits_nothing_else() {
    let backend = Backend::start().await;
    let (key, message) = api_key(1);
    let gateway = gateway_with(&backend, &message, &key, &[]).await;
    for (method, target) in [
        ("GET", "/api/keys"),
        ("POST", "/api/keys"),
        ("GET", "/api/keys/a"),
        ("PATCH", "/api/keys/a"),
        ("DELETE", "/api/keys/a"),
        ("GET", "/api/users"),
        ("POST", "/api/users"),
        ("PATCH", "/api/users/a"),
        ("DELETE", "/api/users/a"),
        ("DELETE", "/api/users/a/tokens"),
        ("POST", "/logout/access"),
        ("POST", "/logout/refresh"),
        ("POST", "/token/refresh"),
    ] {
        let response = gateway.send_as(&key, method, target).await;
        assert_eq!(response.status, StatusCode::FORBIDDEN, "{method} {target}");
    }
    let mut users = UserServiceClient::new(gateway.channel());
    let rejected = users.list_users(bearing(&key, ListUsersRequest::default())).await.unwrap_err();
    assert_eq!(Error::from(&rejected).reason(), Reason::PermissionDenied);
    let rejected = gateway.auth().revoke_token(bearing(&key, RevokeTokenRequest {})).await.unwrap_err();
    assert_eq!(Error::from(&rejected).reason(), Reason::PermissionDenied);
    // Nor is a token a key.
    let response = gateway.send_as(&token("access", "x", None), "GET", "/api/key").await;
    assert_eq!(response.status, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn calls_of_a_key_count_for_its_owner() {
    let backend = Backend::start().await;
    let (key, message) = api_key(1);
    let gateway = gateway_with(&backend, &message, &key, &["--max-calls-per-user", "1"]).await;
    let of_owner = token("access", "x", None);
    // Its message never arrives.
    let pending = bearing(&of_owner, futures::stream::pending());
    let mut embedder = gateway.embedder();
    let open = tokio::spawn(async move { embedder.embed_stream(pending).await.map(drop) });
    until(&gateway, &key, StatusCode::TOO_MANY_REQUESTS).await;
    open.abort();
}

#[tokio::test]
async fn bulk_key_leaves_calls_to_its_owner() {
    let backend = Backend::start().await;
    let (key, message) = api_key(1);
    let message = VerifiableKey { bulk: true, ..message };
    let gateway = gateway_with(&backend, &message, &key, &["--max-calls-per-user", "2"]).await;
    // Its message never arrives.
    let pending = bearing(&key, futures::stream::pending());
    let mut embedder = gateway.embedder();
    let open = tokio::spawn(async move { embedder.embed_stream(pending).await.map(drop) });
    until(&gateway, &key, StatusCode::TOO_MANY_REQUESTS).await;
    let of_owner = token("access", "x", None);
    assert_eq!(gateway.send_as(&of_owner, "GET", "/embed?sentence=a").await.status, StatusCode::OK);
    open.abort();
}

#[tokio::test]
async fn keys_are_managed_over_rest() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let authorization = format!("Bearer {}", token("access", "x", None));
    let headers = [("authorization", &*authorization), JSON];
    let send = async |method: &str, target: &str, body: &str| {
        gateway.send_body(method, target, &headers, body).await
    };

    let body = r#"{"name": "weaviate", "expires_in": 60, "bulk": true, "user": "b",
                   "quota": {"tokens": 5, "period": "month"}}"#;
    let created = send("POST", "/api/keys", body).await;
    assert_eq!(created.status, StatusCode::CREATED);
    assert_eq!((created.header("location"), created.header("cache-control")), ("/api/keys/a", "no-store"));
    let expected = json!({
        "key": "muse_a_b", "id": "a", "name": "weaviate", "owner": "b", "created_at": 1, "created_by": null,
        "expires_at": 60, "disabled": false, "bulk": true, "last_used_day": null, "last_used_from": null,
        "quota": { "tokens": 5, "period": "month" },
    });
    assert_eq!(created.json(), expected);
    let full = send("POST", "/api/keys", r#"{"name": "one too many"}"#).await;
    assert_eq!((full.status.as_u16(), &full.json()["reason"]), (409, &json!("TOO_MANY_KEYS")));

    let listed = send("GET", "/api/keys?user=b&all=true&limit=7&after=x", "").await.json();
    assert_eq!((&listed["keys"][0]["name"], &listed["next"]), (&json!("7 x b true"), &json!("next")));
    assert_eq!(send("GET", "/api/keys", "").await.json()["keys"][0]["name"], "100   false");
    for query in ["limit=0", "limit=1001", "limit=x", "all=maybe"] {
        let rejected = send("GET", &format!("/api/keys?{query}"), "").await;
        assert_eq!(rejected.status, StatusCode::BAD_REQUEST, "{query}");
    }

    assert_eq!(send("GET", "/api/keys/x", "").await.json()["id"], "x");
    let none = send("GET", "/api/keys/none", "").await;
    assert_eq!((none.status.as_u16(), none.header("content-type")), (404, "application/problem+json"));
    for (body, expected) in [
        (r#"{"name": "b", "disabled": true}"#, r#"Some("b") Some(true) None None"#),
        (r#"{"expires_in": null, "bulk": false}"#, "None None Some(0) Some(false)"),
        (r#"{"expires_in": 163115.0}"#, "None None Some(163115) None"),
        (r#"{"quota": {"tokens": 7, "period": "day"}}"#, "None None None None 7"),
        (r#"{"quota": null}"#, "None None None None 0"),
        ("{}", "None None None None"),
    ] {
        assert_eq!(send("PATCH", "/api/keys/x", body).await.json()["name"], expected);
    }
    let deleted = send("DELETE", "/api/keys/x", "").await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT);
    assert_eq!(send("PUT", "/api/keys/x", "").await.status, StatusCode::METHOD_NOT_ALLOWED);

    let secret = "muse_aaaaaaaaaaaa_bbbbbbbb";
    for (body, field) in [
        (format!(r#"{{"name": {secret:?}"#), None),
        (format!(r#"{{"name": "a", "expires_in": {secret:?}}}"#), Some("expires_in")),
        (format!(r#"{{"name": "a", {secret:?}: 1}}"#), None),
        ("{}".to_owned(), None),
        ("[]".to_owned(), None),
        (r#"["a"]"#.to_owned(), None),
        (r#"{"name": "a", "expires_in": 1.5}"#.to_owned(), Some("expires_in")),
        (r#"{"name": "a", "expires_in": 1e300}"#.to_owned(), Some("expires_in")),
        (r#"{"name": "a"} x"#.to_owned(), None),
        (r#"{"name": "a", "quota": {"tokens": 0, "period": "day"}}"#.to_owned(), Some("quota")),
    ] {
        let rejected = send("POST", "/api/keys", &body).await;
        let problem = rejected.json();
        assert_eq!(
            (rejected.status.as_u16(), problem["reason"].as_str()),
            (400, Some("INVALID_ARGUMENT")),
            "{body}"
        );
        assert!(field.is_none() || problem["field"].as_str() == field, "{problem}");
        assert!(!problem.to_string().contains("bbbbbbbb"), "{problem}");
    }
    let form = [("authorization", &*authorization), ("content-type", "application/x-www-form-urlencoded")];
    let rejected = gateway.send_body("POST", "/api/keys", &form, "name=a").await;
    assert_eq!(rejected.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn cookies_of_other_sites_do_not_manage_keys() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let token = token("access", "x", None);
    let (cookie, authorization) = (format!("access_token_cookie={token}"), format!("Bearer {token}"));
    let status = async |credential: (&str, &str), page: Option<(&str, &str)>| {
        let headers: Vec<_> = [credential, JSON].into_iter().chain(page).collect();
        gateway.send_body("POST", "/api/keys", &headers, r#"{"name": "a"}"#).await.status.as_u16()
    };
    let own = format!("http://{}", gateway.address);
    for page in [
        None,
        Some(("sec-fetch-site", "same-origin")),
        Some(("sec-fetch-site", "none")),
        Some(("origin", &*own)),
    ] {
        assert_eq!(status(("cookie", &cookie), page).await, 201, "{page:?}");
    }
    for page in [
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        assert_eq!(status(("cookie", &cookie), Some(page)).await, 403, "{page:?}");
        assert_eq!(
            status(("authorization", &authorization), Some(page)).await,
            201,
            "no browser adds it by itself"
        );
    }
}
