//! The log contains no data of users, at any level.

use muse_proto::v1::{
    EmbedRequest, EmbedStreamRequest, LoginRequest, auth_service_client::AuthServiceClient,
    embedder_service_client::EmbedderServiceClient,
};
use muse_tests::{bearing, channel};
use serde_json::json;

use crate::Services;

/// Words that occur nowhere else.
const TEXT: &str = "canarytext";
const PASSWORD: &str = "canarypassword";

#[tokio::test(flavor = "multi_thread")]
async fn log_at_trace_level_contains_no_text_password_or_token() {
    let services = Services::start(&[("LOG_LEVEL", "trace")]).await;
    let access = services.log_in().await;
    let http = &services.http;
    for target in ["embed", "tokenize"] {
        let answer = http.get(&format!("/{target}?sentence={TEXT}"), &access).await;
        assert_eq!(answer.status, 200);
        assert_eq!(http.get(&format!("/{target}?{TEXT}={TEXT}"), &access).await.status, 400);
        assert_eq!(
            http.json("POST", &format!("/{target}"), &access, &json!({ "sentence": TEXT })).await.status,
            200
        );
        let broken = [("authorization", &*format!("Bearer {access}")), ("content-type", "application/json")];
        assert_eq!(
            http.send("POST", &format!("/{target}"), &broken, &format!("{{\"{TEXT}")).await.status,
            400
        );
    }
    let openai = json!({ "model": TEXT, "input": [TEXT] });
    http.json("POST", "/v1/embeddings", &access, &openai).await;
    http.get(&format!("/{TEXT}"), &access).await;
    http.get("/embed?sentence=a", &format!("{access}{TEXT}")).await;
    assert_eq!(http.log_in("admin", PASSWORD, &[]).await.status, 401);

    let created = http.json("POST", "/api/keys", &access, &json!({ "name": "a key" })).await.json();
    let key = created["key"].as_str().expect("it is created");
    let typo = format!("{}!", &key[..key.len() - 1]);
    assert_eq!(http.get("/embed?sentence=a", key).await.status, 200);
    assert_eq!(http.get("/api/key", key).await.status, 200);
    assert_eq!(http.get("/api/keys", key).await.status, 403);
    assert_eq!(http.get("/embed?sentence=a", &typo).await.status, 401);
    assert_eq!(http.get(&format!("/embed?sentence=a&api_key={key}"), &access).await.status, 200);
    assert_eq!(http.get(&format!("/api/keys/{key}"), &access).await.status, 404);
    for (method, target, body) in [
        ("POST", "/api/users", json!({ "username": "admin", "password": PASSWORD })),
        ("POST", "/api/users", json!({ "username": "maria", "password": PASSWORD, PASSWORD: 1 })),
        ("PATCH", "/api/users/nobody", json!({ "password": PASSWORD, "current_password": PASSWORD })),
        ("PATCH", "/api/users/nobody", json!({ "password": PASSWORD, "role": PASSWORD })),
    ] {
        let rejected = http.json(method, target, &access, &body).await;
        let problem = rejected.json();
        assert!(rejected.status.is_client_error() && !problem.to_string().contains(PASSWORD), "{problem}");
    }
    let secret_of_key = &key["muse_aaaaaaaaaaaa_".len()..key.len() - 1];

    let mut embedder = EmbedderServiceClient::new(channel(services.gateway));
    let request = EmbedRequest { sentences: vec![TEXT.to_owned()], ..Default::default() };
    embedder.embed(bearing(key, request.clone())).await.expect("it is answered");
    embedder.embed(bearing(&access, request)).await.expect("it is answered");
    let item = EmbedStreamRequest { sentence: TEXT.to_owned(), ..Default::default() };
    let stream = bearing(&access, futures::stream::iter([item]));
    let mut answers = embedder.embed_stream(stream).await.expect("it is answered").into_inner();
    while answers.message().await.expect("it goes on").is_some() {}
    let mut auth = AuthServiceClient::new(channel(services.gateway));
    let login = LoginRequest { username: TEXT.to_owned(), password: PASSWORD.to_owned() };
    auth.login(login).await.expect_err("there is no such user");

    let log = services.running.log();
    assert!(log.contains("\"TRACE\"") && log.contains("\"h2::"), "the log has no lines at the level trace");
    // The audit log contains the names of failed logins.
    let lines: Vec<_> = log.lines().filter(|line| !line.contains("\"audit\"")).collect();
    let signature = access.rsplit('.').next().expect("it has three parts");
    for secret in [TEXT, PASSWORD, signature, secret_of_key] {
        let leaks: Vec<_> = lines.iter().filter(|line| line.contains(secret)).collect();
        assert!(leaks.is_empty(), "{leaks:#?}");
    }
    assert!(!log.contains(PASSWORD) && !log.contains(signature) && !log.contains(secret_of_key));
}
