//! The REST routes, compatible with those of the original service.

use std::{
    io::Read,
    time::{Duration, Instant},
};

use flate2::read::GzDecoder;
use half::f16;
use muse_models::verify::cosine;
use muse_proto::v1::{Span, TokenizeRequest};
use muse_tests::{
    Stack, bearing, channel, golden_sentences,
    http_client::{HttpClient, HttpResponse},
    start_gateway, until, wait_until_serving,
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

async fn login(http: &HttpClient) -> (String, String) {
    let answer = http.log_in("admin", "admin", &[]).await;
    assert_eq!((answer.status.as_u16(), &*answer.text_of("message")), (200, "Logged in as admin"));
    (answer.text_of("access_token"), answer.text_of("refresh_token"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_login_embed_refresh_and_logout_work() {
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
async fn details_of_tokens_are_those_of_grpc() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    let sentences: Vec<String> = golden_sentences()
        .into_iter()
        .map(|sentence| sentence.text)
        .take(100)
        .chain([String::new()])
        .collect();
    let call = bearing(&access, TokenizeRequest { sentences: sentences.clone() });
    let expected =
        stack.embedder_client().tokenize(call).await.expect("it is answered").into_inner().sentences;
    let positions = |spans: &[Span]| -> Vec<_> { spans.iter().map(|span| [span.start, span.end]).collect() };
    let expected = json!({
        "tokens": expected.iter().map(|sentence| &sentence.tokens).collect::<Vec<_>>(),
        "ids": expected.iter().map(|sentence| &sentence.ids).collect::<Vec<_>>(),
        "bytes": expected.iter().map(|sentence| positions(&sentence.bytes)).collect::<Vec<_>>(),
        "chars": expected.iter().map(|sentence| positions(&sentence.chars)).collect::<Vec<_>>(),
    });
    let body = json!({ "sentence": sentences, "details": true });
    let answer = http.json("POST", "/tokenize", &access, &body).await;
    assert_eq!((answer.status.as_u16(), answer.json()), (200, expected));

    let only_tokens = http.get("/tokenize?sentence=Hi&details=false", &access).await;
    assert_eq!(only_tokens.json(), json!({ "tokens": [["▁Hi"]] }));
    let unknown = http.get("/tokenize?sentence=Hi&details=yes", &access).await;
    let text = json!({ "message": "details: 'true' and 'false' are known, 'yes' is not" });
    assert_eq!((unknown.status.as_u16(), unknown.json()), (400, text));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn status_shows_the_activity_of_the_embedder() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    assert_eq!(http.send("GET", "/api/ready", &[], "").await.json(), json!({ "ready": true }));
    let (access, _) = login(&http).await;
    assert_eq!(http.get("/embed?sentence=one&sentence=two", &access).await.status, 200);
    // An interval has five seconds.
    let (status, busy) = until(async || {
        let status = http.get("/api/status", &access).await.json();
        let samples = status["embedders"][0]["samples"].as_array().expect("an array");
        let busy = samples.iter().find(|sample| sample["sentences"] == 2)?.clone();
        Some((status, busy))
    })
    .await;
    assert_eq!((&status["embedders_known"], &status["embedders_serving"]), (&json!(1), &json!(1)));
    assert_eq!(
        (&status["model"]["dimension"], &status["embedders"][0]["precision"]),
        (&json!(512), &json!("f32"))
    );
    assert_eq!((&busy["requests"], &busy["tokens"], &busy["rejected"]), (&json!(1), &json!(2), &json!(0)));
    assert!(busy["p50_ms"].as_f64().is_some_and(|p50| p50 > 0.0), "{busy}");
    assert_eq!(busy["p50_ms"], busy["p99_ms"]);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn large_json_body_is_served_and_too_large_gets_413() {
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
    // The client receives the rejection even while it is still sending.
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
async fn all_response_formats_contain_the_same_vectors() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    let sentences: Vec<String> = golden_sentences().into_iter().take(32).map(|line| line.text).collect();
    let body = json!({ "sentence": sentences }).to_string();
    let bearer = format!("Bearer {access}");
    let embed = async |name: &str, value: &str| {
        let headers =
            [("authorization", bearer.as_str()), ("content-type", "application/json"), (name, value)];
        let answer = http.send("POST", "/embed", &headers, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer
    };
    let plain = embed("accept", "application/json").await;
    let gzip = embed("accept-encoding", "gzip").await;
    let zstd = embed("accept-encoding", "zstd").await;
    let npy = embed("accept", "application/octet-stream").await;
    for (form, answer) in [("JSON", &plain), ("JSON, gzip", &gzip), ("JSON, zstd", &zstd), ("npy", &npy)] {
        println!("{form}: {} bytes", answer.body.len());
    }

    let vectors: Vec<f32> = plain.json()["embedding"]
        .as_array()
        .expect("vectors")
        .iter()
        .flat_map(|vector| vector.as_array().expect("a vector"))
        // The shortest decimals that parse as the same f32.
        .map(|number| number.to_string().parse().expect("a number"))
        .collect();
    let data = &npy.body[npy.body.len() - 32 * 512 * 4..];
    let of_npy: Vec<f32> =
        data.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes"))).collect();
    assert_eq!(vectors, of_npy);
    for (format, descr, row) in [("float16", "<f2", 1_024), ("int8", "|i1", 512)] {
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        let body = json!({ "sentence": sentences, "format": format }).to_string();
        let answer = http.send("POST", "/embed", &headers, &body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let (head, data) = answer.body.split_at(128);
        let head = String::from_utf8_lossy(&head[10..]);
        let expected = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (32, 512), }}");
        assert_eq!(head.trim_end(), expected);
        assert_eq!(data.len(), 32 * row);
        for (row, vector) in data.chunks_exact(row).zip(vectors.chunks_exact(512)) {
            let numbers: Vec<f32> = if format == "int8" {
                row.iter().map(|&byte| f32::from(byte.cast_signed())).collect()
            } else {
                row.chunks_exact(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
            };
            assert!(cosine(&numbers, vector) > 0.9998);
        }
    }
    let mut unzipped = Vec::new();
    GzDecoder::new(&gzip.body[..]).read_to_end(&mut unzipped).expect("gzip");
    assert_eq!(unzipped, plain.body);
    assert_eq!(zstd::bulk::decompress(&zstd.body, plain.body.len()).expect("zstd"), plain.body);
    for shorter in [&gzip, &zstd, &npy] {
        assert!(shorter.body.len() < plain.body.len() * 2 / 3, "{} bytes", shorter.body.len());
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn password_guesser_is_throttled() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (access, _) = login(&http).await;
    let guess = async |password: &str| {
        http.send("POST", &format!("/login?username=admin&password={password}"), &[], "").await
    };
    let wait = |answer: &HttpResponse| answer.header("retry-after").parse::<u64>().unwrap_or(0);
    // The first wait is one second, which may pass before the next request.
    let mut rejected = guess("0").await;
    for number in 1..=100 {
        if wait(&rejected) >= 2 {
            break;
        }
        assert!([401, 429].contains(&rejected.status.as_u16()));
        rejected = guess(&number.to_string()).await;
    }
    for answer in [rejected, guess("admin").await] {
        assert_eq!(answer.status, 429);
        assert!(wait(&answer) >= 1);
        let text = answer.json()["message"].as_str().expect("a text").to_owned();
        assert!(text.contains("Too many failed logins"), "{text}");
    }
    assert_eq!(http.get("/embed?sentence=Hi", &access).await.status, 200, "existing tokens remain valid");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn public_keys_are_served_as_jwks() {
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
    // The JWKS contains no private parameter.
    let names: Vec<&String> = keys[0].as_object().expect("a key").keys().collect();
    assert_eq!(names, ["alg", "crv", "kid", "kty", "use", "x"]);

    let answer = http.send("HEAD", path, &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.body.len()), (200, 0));
    let answer = http.send("POST", path, &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("allow")), (405, "GET, HEAD, OPTIONS"));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_delay_the_shutdown() {
    let stack = Stack::start().await;
    let mut silent = Vec::new();
    for sent in ["", "PRI * HTTP/2", "GET /embed HTTP/1.1\r\nHost: muse\r\n\r\n"] {
        let mut stream = TcpStream::connect(stack.gateway.address).await.expect("it listens");
        stream.write_all(sent.as_bytes()).await.expect("it takes what is sent");
        silent.push(stream);
    }
    // The last connection gets a response and stays open.
    let mut first = [0; 12];
    silent[2].read_exact(&mut first).await.expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 401");
    let start = Instant::now();
    stack.stop().await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn cookies_are_off_or_secure_as_configured() {
    let stack = Stack::start().await;
    let (auth, embedder) = (stack.auth.address, stack.embedder.address);
    for (options, headers, secure) in [
        (&[][..], &[][..], Some(false)),
        // The header of an untrusted client.
        (&[], &[("x-forwarded-proto", "https")], Some(false)),
        (&["--trusted-proxies", "127.0.0.1"], &[("x-forwarded-proto", "https")], Some(true)),
        (&["--trusted-proxies", "127.0.0.1"], &[("x-forwarded-proto", "http")], Some(false)),
        (&["--cookies", "secure"], &[], Some(true)),
        (&["--cookies", "off"], &[], None),
    ] {
        let gateway = start_gateway(auth, embedder, options).await;
        wait_until_serving(channel(gateway.address)).await;
        let http = HttpClient::new(gateway.address);
        let answer = http.log_in("admin", "admin", headers).await;
        let set: Vec<_> = answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap()).collect();
        assert_eq!(set.len(), if secure.is_some() { 2 } else { 0 }, "{options:?}");
        assert!(
            set.iter().all(|cookie| Some(cookie.ends_with("; Secure")) == secure),
            "{options:?}: {set:?}"
        );

        let cookie = format!("access_token_cookie={}", answer.json()["access_token"].as_str().unwrap());
        let answer = http.send("GET", "/tokenize?sentence=Hi", &[("cookie", &cookie)], "").await;
        assert_eq!(answer.status.as_u16(), if secure.is_some() { 200 } else { 401 }, "{options:?}");
        let answer = http.send("POST", "/logout", &[("cookie", &cookie)], "").await;
        assert_eq!(answer.status.as_u16(), if secure.is_some() { 200 } else { 404 }, "{options:?}");
        gateway.stop().await;
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cors_allows_configured_origins_only() {
    let stack = Stack::start().await;
    let listed = "https://example.org,http://localhost:8080";
    let gateway =
        start_gateway(stack.auth.address, stack.embedder.address, &["--cors-origins", listed]).await;
    wait_until_serving(channel(gateway.address)).await;
    let http = HttpClient::new(gateway.address);
    let preflight = async |origin: &str| {
        let headers = [
            ("origin", origin),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type,x-grpc-web"),
        ];
        http.send("OPTIONS", "/muse.v1.EmbedderService/Embed", &headers, "").await
    };
    let allowed = preflight("http://localhost:8080").await;
    assert_eq!(allowed.header("access-control-allow-origin"), "http://localhost:8080");
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    assert!(allowed.header("access-control-allow-headers").contains("x-grpc-web"));
    assert!(allowed.header("access-control-allow-methods").contains("POST"));
    assert_eq!(preflight("https://example.com").await.header("access-control-allow-origin"), "");

    // Responses and errors have CORS headers; requests without an origin are unaffected.
    let rejected = http.send("GET", "/embed", &[("origin", "https://example.org")], "").await;
    assert_eq!(
        (rejected.status.as_u16(), rejected.header("access-control-allow-origin")),
        (401, "https://example.org")
    );
    assert!(rejected.header("access-control-expose-headers").contains("server-timing"));
    let options = http.send("OPTIONS", "/embed", &[], "").await;
    assert_eq!(options.header("allow"), "GET, HEAD, OPTIONS, POST");
    assert_eq!(http.send("GET", "/muse.v1.EmbedderService/Embed", &[], "").await.status, 405);
    gateway.stop().await;
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn user_manages_only_own_password_and_tokens_over_rest() {
    let stack = Stack::start().await;
    let http = HttpClient::new(stack.gateway.address);
    let (admin, _) = login(&http).await;
    let user = json!({ "username": "ann", "password": "a long password" });
    assert_eq!(http.json("POST", "/api/users", &admin, &user).await.status, 201);
    let log_in = async |password: &str| http.log_in("ann", password, &[]).await.text_of("access_token");
    let ann = log_in("a long password").await;

    for (method, target, body) in [
        ("GET", "/api/users", json!(null)),
        ("POST", "/api/users", json!({ "username": "bob", "password": "a long password" })),
        ("PATCH", "/api/users/ann", json!({ "role": "admin" })),
        ("PATCH", "/api/users/ann", json!({ "disabled": true })),
        ("PATCH", "/api/users/admin", json!({ "password": "my password", "current_password": "admin" })),
        ("DELETE", "/api/users/ann", json!(null)),
        ("DELETE", "/api/users/admin/tokens", json!(null)),
    ] {
        let rejected = http.json(method, target, &ann, &body).await;
        let reason = &rejected.json()["reason"];
        assert_eq!(
            (rejected.status.as_u16(), reason),
            (403, &json!("PERMISSION_DENIED")),
            "{method} {target}"
        );
    }

    let change = |current: &str| json!({ "password": "another password", "current_password": current });
    let wrong = http.json("PATCH", "/api/users/ann", &ann, &change("a guess")).await;
    assert_eq!((wrong.status.as_u16(), &wrong.json()["reason"]), (401, &json!("BAD_CREDENTIALS")));
    let changed = http.json("PATCH", "/api/users/ann", &ann, &change("a long password")).await;
    assert_eq!((changed.status.as_u16(), changed.text_of("username")), (200, "ann".to_owned()));

    let ann = log_in("another password").await;
    let authorization = format!("Bearer {ann}");
    let revoke = [("authorization", &*authorization)];
    assert_eq!(http.send("DELETE", "/api/users/ann/tokens", &revoke, "").await.status, 204);
    let revoked = async || (http.get("/tokenize?sentence=a", &ann).await.status == 401).then_some(());
    until(revoked).await;
    stack.stop().await;
}
