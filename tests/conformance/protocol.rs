//! HTTP below the routes: rare syntax, and malformed requests.

use std::fmt::Write as _;

use http_body_util::BodyExt;
use muse_tests::channel;
use serde_json::json;
use tower::ServiceExt;

use super::{target::Target, wire};

#[tokio::test(flavor = "multi_thread")]
async fn rare_request_syntax_is_accepted() {
    let mut target = Target::start().await;
    let authorization = target.fill("Authorization: Bearer {access}").await.expect("a token");
    let tokens = json!({ "tokens": [["▁Hi"]] });
    let body = r#"{"sentence": "Hi"}"#;
    let (first, second) = body.split_at(5);
    for (name, request) in [
        (
            "the target with a host",
            "GET http://muse/tokenize?sentence=Hi HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{}\r\n\r\n"
                .to_owned(),
        ),
        ("HTTP/1.0", "GET /tokenize?sentence=Hi HTTP/1.0\r\n{}\r\n\r\n".to_owned()),
        (
            "a body in chunks",
            format!(
                "POST /tokenize HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{{}}\r\nContent-Type: application/json\r\n\
                 Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x};x=y\r\n{second}\r\n0\r\n\r\n",
                first.len(),
                second.len(),
            ),
        ),
        (
            "a body on GET",
            format!(
                "GET /tokenize HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{{}}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len(),
            ),
        ),
        (
            "an empty line before",
            "\r\nGET /tokenize?sentence=Hi HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{}\r\n\r\n"
                .to_owned(),
        ),
    ] {
        let answer = wire::send(target.address, request.replace("{}", &authorization).as_bytes()).await;
        assert_eq!((answer.status.as_u16(), answer.json()), (200, tokens.clone()), "{name}");
    }
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expect_100_continue_is_answered() {
    let mut target = Target::start().await;
    let authorization = target.fill("Authorization: Bearer {access}").await.expect("a token");
    let request = format!(
        "POST /tokenize HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{authorization}\r\n\
         Content-Type: application/json\r\nContent-Length: 18\r\nExpect: 100-continue\r\n\r\n{{\"sentence\": \"Hi\"}}",
    );
    let received = wire::exchange(target.address, request.as_bytes()).await;
    let received = received.strip_prefix(b"HTTP/1.1 100 Continue\r\n\r\n").expect("100 Continue comes first");
    assert_eq!(wire::answer(received).json(), json!({ "tokens": [["▁Hi"]] }));
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let mut target = Target::start().await;
    let authorization = target.fill("Authorization: Bearer {access}").await.expect("a token");
    let mut requests = String::new();
    for number in 0..5 {
        let end = if number == 4 { "Connection: close\r\n" } else { "" };
        write!(
            requests,
            "GET /tokenize?sentence={number} HTTP/1.1\r\nHost: muse\r\n{authorization}\r\n{end}\r\n"
        )
        .expect("a string takes all");
    }
    let received = wire::exchange(target.address, requests.as_bytes()).await;
    let received = String::from_utf8(received).expect("text");
    let found: Vec<&str> = received
        .match_indices("[[\"▁")
        .map(|(at, opening)| {
            let rest = &received[at + opening.len()..];
            &rest[..1]
        })
        .collect();
    assert_eq!(found, ["0", "1", "2", "3", "4"]);
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_routes_work_over_http_2() {
    let mut target = Target::start().await;
    let authorization = target.fill("Bearer {access}").await.expect("a token");
    let request = http::Request::get(format!("http://{}/tokenize?sentence=Hi", target.address))
        .header("authorization", authorization)
        .body(tonic::body::Body::empty())
        .expect("the request is well-formed");
    let answer = channel(target.address).oneshot(request).await.expect("it answers");
    assert_eq!((answer.status().as_u16(), answer.version()), (200, http::Version::HTTP_2));
    let body = answer.into_body().collect().await.expect("the body is whole").to_bytes();
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&body).expect("JSON"),
        json!({ "tokens": [["▁Hi"]] })
    );
    target.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_request_gets_4xx_and_the_service_continues() {
    let mut target = Target::start().await;
    let authorization = target.fill("Authorization: Bearer {access}").await.expect("a token");
    let long = "x".repeat(28_000);
    let get = |query: &str| {
        format!(
            "GET /tokenize?sentence={query} HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{authorization}\r\n\r\n"
        )
    };
    let answer = wire::send(target.address, get(&long).as_bytes()).await;
    assert_eq!(answer.status, 200, "a query of 28,000 bytes");
    let sized = |sizes: &str| {
        format!("POST /login HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n{sizes}\r\n\r\nzz\r\n")
    };
    for (name, request, status) in [
        ("a target of 60,000 bytes", get(&"x".repeat(60_000)), 431),
        ("1,000 headers", format!("GET / HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(1_000)), 431),
        ("no HTTP", "hello\r\n\r\n".to_owned(), 400),
        ("a space in the target", "GET /a b HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("no length", sized("Content-Length: x"), 400),
        ("two lengths", sized("Content-Length: 1\r\nContent-Length: 2"), 400),
        ("a bad chunk", sized("Transfer-Encoding: chunked\r\nContent-Type: application/json"), 400),
        (
            "a method of its own",
            "BREW /embed HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n\r\n".to_owned(),
            405,
        ),
        ("no host", "GET /embed HTTP/1.1\r\nConnection: close\r\n\r\n".to_owned(), 400),
        ("no path", "OPTIONS * HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n\r\n".to_owned(), 404),
    ] {
        let answer = wire::send(target.address, request.as_bytes()).await;
        assert_eq!(answer.status, status, "{name}");
        // Rejections by the HTTP library have no body.
        assert!(answer.body.is_empty() || answer.json().is_object(), "{name}: {answer:?}");
    }
    assert_eq!(wire::send(target.address, get("Hi").as_bytes()).await.status, 200);
    target.stop().await;
}
