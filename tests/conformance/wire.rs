//! Sends raw bytes as HTTP requests, including malformed ones.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use muse_tests::{TIMEOUT, http_client::HttpResponse};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Encodes a request that closes its connection.
pub(crate) fn request(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&str>) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: muse\r\nConnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    if let Some(body) = body {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body.unwrap_or_default());
    text.into_bytes()
}

/// Sends bytes and returns everything that the server sends until it closes the connection.
pub(crate) async fn exchange(address: SocketAddr, sent: &[u8]) -> Vec<u8> {
    let exchanged = async {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        // A server that rejects the request may stop reading early.
        let _ = stream.write_all(sent).await;
        let mut received = Vec::new();
        let _ = stream.read_to_end(&mut received).await;
        received
    };
    tokio::time::timeout(TIMEOUT, exchanged).await.expect("the server closes the connection")
}

/// Sends a request and returns the response.
pub(crate) async fn send(address: SocketAddr, sent: &[u8]) -> HttpResponse {
    answer(&exchange(address, sent).await)
}

/// Parses a response that ends with the connection.
pub(crate) fn answer(received: &[u8]) -> HttpResponse {
    let end = received
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap_or_else(|| panic!("the answer has no head: {:?}", String::from_utf8_lossy(received)));
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let mut lines = head.split("\r\n");
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| {
            let name: HeaderName = name.parse().expect("a name");
            (name, HeaderValue::from_str(value.trim()).expect("a value"))
        })
        .collect();
    let body = &received[end + 4..];
    let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    HttpResponse {
        status: status.and_then(|code| StatusCode::from_u16(code).ok()).expect("a status"),
        body: if chunked { joined(body) } else { Bytes::copy_from_slice(body) },
        headers,
    }
}

/// Decodes a chunked body.
fn joined(mut body: &[u8]) -> Bytes {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size =
            std::str::from_utf8(&body[..end]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.expect("the size of a chunk");
        let data = &body[end + 2..];
        if size == 0 {
            break;
        }
        whole.extend_from_slice(&data[..size]);
        body = &data[size + 2..];
    }
    whole.into()
}
