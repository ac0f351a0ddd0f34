//! The rules of the REST routes, as clients of the service that this one replaces know them.

use muse_tests::{
    Stack,
    http_client::{Answer, HttpClient},
};
use serde_json::{Value, json};

async fn login(http: &HttpClient) -> (String, String) {
    let body = json!({ "username": "admin", "password": "admin" }).to_string();
    let answer = http.send("POST", "/login", &[("content-type", "application/json")], &body).await;
    assert_eq!((answer.status.as_u16(), &answer.json()["message"]), (200, &json!("Logged in as admin")));
    let token = |name: &str| answer.json()[name].as_str().expect("a token").to_owned();
    (token("access_token"), token("refresh_token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_s_day() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, refresh) = login(&http).await;

    let answer = http.get("/tokenize?sentence=This%20is%20sentence%20example.&sentence=Hi", &access).await;
    let tokens = json!({ "tokens": [["▁This", "▁is", "▁sentence", "▁example", "."], ["▁Hi"]] });
    assert_eq!((answer.status.as_u16(), answer.json()), (200, tokens));

    let answer = http.get("/embed?sentence=Hi", &access).await;
    let vector = answer.json()["embedding"][0].as_array().expect("a vector").clone();
    assert_eq!((answer.status.as_u16(), vector.len()), (200, 512));
    let first = vector[0].as_f64().expect("a number");
    assert!((first - 0.117_079_59).abs() < 2e-6, "{first}");

    let answer = http.post("/token/refresh", &refresh).await;
    assert_eq!(answer.json()["message"], "Access token has been refreshed");
    let second = answer.json()["access_token"].as_str().expect("a token").to_owned();
    assert_eq!(http.get("/embed?sentence=Hi", &second).await.status, 200);

    let answer = http.post("/logout/access", &access).await;
    assert_eq!(answer.json(), json!({ "message": "Access token has been revoked" }));
    let answer = http.get("/embed?sentence=Hi", &access).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (401, json!({ "msg": "Token has been revoked" })));
    assert_eq!(http.get("/embed?sentence=Hi", &second).await.status, 200);

    let answer = http.post("/logout/refresh", &refresh).await;
    assert_eq!(answer.json(), json!({ "message": "Refresh token has been revoked" }));
    assert_eq!(http.post("/token/refresh", &refresh).await.status, 401);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_inputs_come_in_a_json_body() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    let many: Vec<String> =
        (0..500).map(|n| format!("sentence number {n}, long enough for a line")).collect();
    let answer = http.json("GET", "/embed", &access, &json!({ "sentence": many })).await;
    assert_eq!(answer.json()["embedding"].as_array().map(Vec::len), Some(500));

    let too_many = vec!["a"; 10_000];
    let answer = http.json("GET", "/embed", &access, &json!({ "sentence": too_many })).await;
    assert_eq!(answer.status, 413);
    assert!(answer.json()["message"].as_str().expect("a text").contains("the limit is 4096"));
    let answer = http.json("GET", "/embed", &access, &json!({ "sentence": "x".repeat(1_000_000) })).await;
    assert!(answer.json()["message"].as_str().expect("a text").contains("the limit is 262144"));
    // A refusal reaches even those who are still sending.
    let huge = json!({ "sentence": "x".repeat(40 << 20) });
    for _ in 0..5 {
        let answer = http.json("GET", "/tokenize", &access, &huge).await;
        assert_eq!(answer.status, 413);
        assert!(answer.json()["message"].as_str().expect("a text").contains("the limit is 16777216 bytes"));
        assert_eq!(http.json("GET", "/tokenize", "x", &huge).await.status, 422);
    }
    assert_eq!(http.get("/embed?sentence=Hi", &access).await.status, 200);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_the_shapes_that_clients_know() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, refresh) = login(&http).await;
    let blank = |field: &str| json!({ "message": { field: "This field cannot be blank" } });
    let msg = |text: &str| json!({ "msg": text });
    let bearer = |token: &str| format!("Bearer {token}");
    let bad_form = "Bad Authorization header. Expected 'Authorization: Bearer <JWT>'";
    let no_bearer = "Missing 'Bearer' type in 'Authorization' header. Expected 'Authorization: Bearer <JWT>'";
    let (own, other_kind) = (bearer(&access), bearer(&refresh));
    let broken = format!("{}AAAA", &own[..own.len() - 4]);
    let cases: Vec<(&str, &str, &str, u16, Value)> = vec![
        ("POST", "/login", "", 400, blank("username")),
        ("POST", "/login?username=admin", "", 400, blank("password")),
        ("POST", "/login?username=admin&password=x", "", 401, msg("Unauthorized")),
        ("POST", "/login?username=admin&password=", "", 401, msg("Unauthorized")),
        ("GET", "/embed", "", 401, msg("Missing Authorization Header")),
        ("GET", "/embed", &own, 400, blank("sentence")),
        ("GET", "/tokenize?text=a", &own, 400, blank("sentence")),
        ("GET", "/embed?sentence=a", "Basic YWRtaW4=", 401, msg(no_bearer)),
        ("GET", "/embed?sentence=a", "Bearer", 422, msg(bad_form)),
        ("GET", "/embed?sentence=a", "Bearer x y", 422, msg(bad_form)),
        ("GET", "/embed?sentence=a", &broken, 422, msg("Signature verification failed")),
        ("GET", "/embed?sentence=a", &other_kind, 422, msg("Only non-refresh tokens are allowed")),
        ("POST", "/token/refresh", &own, 422, msg("Only refresh tokens are allowed")),
        ("POST", "/logout/refresh", &own, 422, msg("Only refresh tokens are allowed")),
        ("POST", "/logout/access", &other_kind, 422, msg("Only non-refresh tokens are allowed")),
    ];
    for (method, target, authorization, status, body) in cases {
        let headers = [("authorization", authorization)];
        let headers = if authorization.is_empty() { &headers[..0] } else { &headers[..] };
        let answer = http.send(method, target, headers, "").await;
        let shown = (answer.status.as_u16(), answer.json());
        assert_eq!(shown, (status, body), "{method} {target} {authorization}");
        if answer.json() == msg("Unauthorized") {
            assert_eq!(answer.header("www-authenticate"), "Basic realm=\"Login Required\"");
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_guesses_passwords_has_to_wait() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    let guess = async |password: &str| {
        http.send("POST", &format!("/login?username=admin&password={password}"), &[], "").await
    };
    let wait = |answer: &Answer| answer.header("retry-after").parse::<u64>().unwrap_or(0);
    // The first wait is of one second, which may be over before the next request.
    let mut refused = guess("0").await;
    for number in 1..=100 {
        if wait(&refused) >= 2 {
            break;
        }
        assert!([401, 429].contains(&refused.status.as_u16()));
        refused = guess(&number.to_string()).await;
    }
    for answer in [refused, guess("admin").await] {
        assert_eq!(answer.status, 429);
        assert!(wait(&answer) >= 1);
        let text = answer.json()["message"].as_str().expect("a text").to_owned();
        assert!(text.contains("Too many failed logins"), "{text}");
    }
    assert_eq!(http.get("/embed?sentence=Hi", &access).await.status, 200, "who is logged in stays so");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn methods_and_paths_are_answered_in_json() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    for (path, allowed) in [("/login", "OPTIONS, POST"), ("/embed", "GET, HEAD, OPTIONS")] {
        let answer = http.send("PUT", path, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, allowed));
        assert!(answer.json()["message"].is_string());
        let answer = http.send("OPTIONS", path, &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("allow"), answer.body.len()), (200, allowed, 0));
    }
    for path in ["/", "/nope", "/LOGIN", "/embed/", "/token"] {
        let answer = http.send("GET", path, &[], "").await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.json()["message"].is_string(), "{path}");
    }
    let bearer = format!("Bearer {access}");
    let answer = http.send("HEAD", "/embed?sentence=Hi", &[("authorization", &bearer)], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    assert_eq!(http.send("HEAD", "/embed?sentence=Hi", &[], "").await.status, 401);
    assert_eq!(http.send("HEAD", "/login", &[], "").await.status, 405);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keys_are_public() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let path = "/.well-known/jwks.json";
    let answer = http.send("GET", path, &[], "").await;
    let shown = (answer.status.as_u16(), answer.header("content-type"), answer.header("cache-control"));
    assert_eq!(shown, (200, "application/jwk-set+json", "public, max-age=60"));
    let keys = answer.json()["keys"].as_array().expect("keys").clone();
    assert_eq!(keys.len(), 1);
    assert_eq!(
        (&keys[0]["kty"], &keys[0]["crv"], &keys[0]["alg"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"))
    );
    // No part of it is private.
    let names: Vec<&String> = keys[0].as_object().expect("a key").keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);

    let answer = http.send("HEAD", path, &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    let answer = http.send("POST", path, &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD, OPTIONS"));
    stack.stop().await;
}
