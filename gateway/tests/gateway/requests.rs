//! Requests that are malformed, encoded, or sent by web pages.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::StatusCode;

use crate::harness::{Backend, Gateway, token};

/// Sends bytes and returns the response, until its connection is closed.
async fn exchange(address: SocketAddr, request: Vec<u8>) -> String {
    let exchanging = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(&request).unwrap();
        let mut response = Vec::new();
        stream.read_to_end(&mut response).unwrap();
        String::from_utf8_lossy(&response).into_owned()
    });
    exchanging.await.unwrap()
}

fn post(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("POST {path} HTTP/1.1\r\nhost: muse\r\nconnection: close\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += &format!("content-length: {}\r\n\r\n", body.len());
    [request.as_bytes(), body].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn request_without_exactly_one_host_gets_400() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    for path in ["/openapi.json", "/v1/models", "/muse.v1.AuthService/Login"] {
        for hosts in ["", "host: a\r\nhost: a\r\n"] {
            let request = format!("GET {path} HTTP/1.1\r\n{hosts}connection: close\r\n\r\n");
            let response = exchange(gateway.address, request.into()).await;
            assert!(response.starts_with("HTTP/1.1 400 "), "{path}: {response}");
            assert!(response.contains("one Host header"), "{response}");
        }
    }
    let old = b"GET /openapi.json HTTP/1.0\r\n\r\n".to_vec();
    assert!(exchange(gateway.address, old).await.starts_with("HTTP/1.0 200 "));
    assert_eq!(gateway.send("GET", "/openapi.json", &[]).await.status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_methods_reject_other_content_types() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    for kind in [
        "application/grpcx",
        "text/plain",
        "application/json",
        "application/grpc+json",
        "application/grpc-web+json",
        "application/grpc-web-textx",
    ] {
        for path in ["/muse.v1.AuthService/Login", "/grpc.health.v1.Health/Check"] {
            let response = exchange(gateway.address, post(path, &[("content-type", kind)], &[0; 5])).await;
            assert!(response.starts_with("HTTP/1.1 415 "), "{kind}: {response}");
        }
    }
    assert_eq!(backend.logins(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_grpc_web_is_an_invalid_argument() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let authorization = format!("Bearer {}", token("access", "a", None));
    let message = [0; 5];
    let trailers = b"\x80\0\0\0\x03a:b";
    let text = "application/grpc-web-text";
    let plain = "application/grpc-web+proto";
    for path in [
        "/muse.v1.AuthService/Login",
        "/muse.v1.EmbedderService/Embed",
        "/muse.v1.EmbedderService/EmbedStream",
        "/grpc.health.v1.Health/Check",
    ] {
        for (kind, body) in [
            (text, b"!!!!".to_vec()),
            (text, BASE64_STANDARD.encode(trailers).into_bytes()),
            (plain, [&message[..], trailers].concat()),
            (plain, vec![0, 0, 0, 0, 9, 1]),
            (plain, vec![0, 0]),
            ("Application/grpc-web; charset=utf-8", vec![0, 0]),
        ] {
            let headers = [("content-type", kind), ("authorization", authorization.as_str())];
            let response = exchange(gateway.address, post(path, &headers, &body)).await;
            assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
            let (_, trailers) = response.split_once("\r\n\r\n").unwrap();
            assert!(trailers.contains("grpc-status:3"), "{path}, {kind}, {body:?}: {trailers}");
            assert!(!trailers.contains("RetryInfo"), "{trailers}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_content_encoding_gets_415_with_the_known_ones() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let authorization = format!("Bearer {}", token("access", "a", None));
    let body = br#"{"sentence": "a", "input": "a", "model": "m"}"#;
    for path in ["/embed", "/tokenize", "/login", "/v1/embeddings"] {
        let headers = [
            ("authorization", authorization.as_str()),
            ("content-type", "application/json"),
            ("content-encoding", "br"),
        ];
        let response = exchange(gateway.address, post(path, &headers, body)).await;
        assert!(response.starts_with("HTTP/1.1 415 "), "{path}: {response}");
        assert!(response.contains("accept-encoding: gzip, deflate, zstd\r\n"), "{response}");
        assert_eq!(response.contains("{\"error\":{"), path == "/v1/embeddings", "{response}");
    }
    let zstd = zstd::bulk::compress(body, 1).unwrap();
    let headers = [
        ("authorization", authorization.as_str()),
        ("content-type", "application/json"),
        ("content-encoding", "zstd"),
    ];
    let response = exchange(gateway.address, post("/embed", &headers, &zstd)).await;
    assert!(
        response.starts_with("HTTP/1.1 200 ") && response.ends_with("{\"embedding\":[[1.0]]}"),
        "{response}"
    );
}

/// The preflight request of OpenAI's TypeScript SDK 4 in a browser.
#[tokio::test(flavor = "multi_thread")]
async fn preflight_allows_the_headers_of_openais_sdk() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--cors-origins", "https://example.org"]).await;
    let wanted = "authorization,content-type,openai-organization,openai-project,x-stainless-arch,x-stainless-lang,\
                  x-stainless-os,x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,\
                  x-stainless-runtime-version,x-stainless-timeout";
    let headers = [("access-control-request-method", "POST"), ("access-control-request-headers", wanted)];
    let preflight = async |origin| {
        gateway.send("OPTIONS", "/v1/embeddings", &[headers[0], headers[1], ("origin", origin)]).await
    };
    let allowed = preflight("https://example.org").await;
    assert_eq!(allowed.status, StatusCode::OK);
    assert_eq!(allowed.header("access-control-allow-headers"), wanted);
    assert_eq!(allowed.header("access-control-allow-origin"), "https://example.org");
    assert_eq!(allowed.header("access-control-allow-credentials"), "true");
    assert_eq!(preflight("https://example.com").await.header("access-control-allow-origin"), "");
}
