//! Isolation of clients from each other.

use std::{
    io::{ErrorKind, Read, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use h2::{Reason as Http2Reason, client::SendRequest};
use http::{HeaderValue, Request, StatusCode, Version};
use muse_gateway::SystemResolver;
use muse_proto::{Error, Reason, v1::EmbedRequest};
use tonic::Code;

use crate::{
    bearing,
    harness::{Backend, Gateway, token},
    login,
};

/// Sends bytes over HTTP/1.1 and reads until the gateway closes the connection, or for a second.
fn exchange(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // The gateway may close the connection before it has read all.
    let _ = stream.write_all(request);
    let mut response = Vec::new();
    let mut part = [0; 4096];
    while let Ok(length) = stream.read(&mut part) {
        if length == 0 {
            break;
        }
        response.extend_from_slice(&part[..length]);
    }
    String::from_utf8_lossy(&response).into_owned()
}

async fn http2(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // With a small window h2 ends the connection of a client that leaves many small responses
    // unread.
    let handshake = h2::client::Builder::new().initial_connection_window_size(16 << 20).handshake(stream);
    let (client, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    client.ready().await.unwrap()
}

fn grpc(address: SocketAddr, path: &str) -> http::request::Builder {
    Request::post(format!("http://{address}{path}"))
        .version(Version::HTTP_2)
        .header("content-type", "application/grpc")
        .header("te", "trailers")
}

/// The established connections to the services behind the gateway, as local ports.
fn connections_to(backend: &Backend) -> Vec<String> {
    let ports: Vec<String> =
        backend.addresses().iter().map(|address| format!(":{:04X}", address.port())).collect();
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let mut found: Vec<String> = table
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, remote, state) = (fields.next()?, fields.next()?, fields.next()?);
            let is_one = state == "01" && ports.iter().any(|port| remote.ends_with(port));
            is_one.then(|| local.to_owned())
        })
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_heads_get_431_and_break_no_connection() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    gateway.auth().login(login("a")).await.unwrap();
    let token = token("access", "a", None);
    gateway.send_as(&token, "GET", "/embed?sentence=a").await;
    let before = connections_to(&backend);
    assert!(!before.is_empty());
    let address = gateway.address;
    for size in [33_000, 120_000, 300_000] {
        for (path, kind) in [
            ("/muse.v1.AuthService/Login", "application/grpc-web+proto"),
            ("/muse.v1.EmbedderService/Embed", "application/grpc-web+proto"),
            ("/login", "application/json"),
            ("/embed", "application/json"),
        ] {
            let padding = "x".repeat(size);
            let head = format!(
                "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nAuthorization: Bearer {token}\r\n\
                 X-Big: {padding}\r\nContent-Length: 5\r\n\r\n\0\0\0\0\0"
            );
            let response =
                tokio::task::spawn_blocking(move || exchange(address, head.as_bytes())).await.unwrap();
            assert!(response.starts_with("HTTP/1.1 431 "), "{path} {size}: {response}");
        }
    }
    // Many small headers.
    let many: String = (0..200).map(|number| format!("x-{number}: y\r\n")).collect();
    let head = format!("GET /embed?sentence=a HTTP/1.1\r\nHost: a\r\n{many}\r\n");
    let response = tokio::task::spawn_blocking(move || exchange(address, head.as_bytes())).await.unwrap();
    assert!(response.starts_with("HTTP/1.1 431 "), "{response}");

    // Over HTTP/2 the connection of the client continues, up to a size that allows a response.
    for path in ["/muse.v1.AuthService/Login", "/muse.v1.EmbedderService/Embed", "/embed"] {
        let mut client = http2(address).await;
        let big = HeaderValue::try_from("x".repeat(40_000)).unwrap();
        let request = grpc(address, path).header("x-big", big).body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        assert_eq!(response.await.unwrap().status(), StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let mut client = client.ready().await.unwrap();
        let (response, _) = client.send_request(grpc(address, path).body(()).unwrap(), true).unwrap();
        assert!(response.await.is_ok());
    }
    assert_eq!(connections_to(&backend), before);
    gateway.auth().login(login("a")).await.unwrap();
}

#[tokio::test]
async fn only_known_headers_are_forwarded() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let mut call = bearing(&token("access", "a", None), EmbedRequest::default());
    let given = "x".repeat(20_000);
    for name in ["x-custom", "cookie", "x-forwarded-host", "grpc-tags-bin"] {
        match name.ends_with("-bin") {
            true => {
                let value = tonic::metadata::MetadataValue::from_bytes(b"abc");
                call.metadata_mut().insert_bin("grpc-tags-bin", value);
            }
            false => {
                call.metadata_mut().insert(name, given[..100].parse().unwrap());
            }
        }
    }
    // The gateway adds the headers of the request id and the trace.
    call.metadata_mut().insert("x-request-id", "order-66".parse().unwrap());
    gateway.embedder().embed(call).await.unwrap();
    let mut names = backend.take_received().names;
    names.sort();
    names.dedup();
    let expected = [
        "authorization",
        "content-length",
        "content-type",
        "te",
        "traceparent",
        "user-agent",
        "x-forwarded-for",
        "x-request-id",
    ];
    assert_eq!(names, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_calls_are_not_forwarded_to_auth() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let mut idle = Vec::new();
    for _ in 0..2 {
        let mut client = http2(gateway.address).await;
        for _ in 0..600 {
            client = client.ready().await.unwrap();
            let request = grpc(gateway.address, "/muse.v1.AuthService/Login").body(()).unwrap();
            idle.push(client.send_request(request, false).unwrap());
        }
    }
    for _ in 0..5 {
        gateway.auth().login(login("a")).await.unwrap();
    }
    assert_eq!(backend.logins(), 5, "no idle call was forwarded");
}

#[tokio::test]
async fn slow_message_shortens_the_forwarded_deadline() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let mut client = http2(gateway.address).await;
    let request = grpc(gateway.address, "/muse.v1.EmbedderService/Embed")
        .header("authorization", format!("Bearer {}", token("access", "a", None)))
        .header("grpc-timeout", "20S");
    let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    body.send_data(Bytes::from_static(&[0; 5]), true).unwrap();
    assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    let left = backend.take_received().deadline.unwrap();
    // The deadline begins when the gateway reads the head, which may be some time after it was sent.
    assert!(left < Duration::from_millis(19_900), "{left:?}");
    assert!(left > Duration::from_secs(9), "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelled_calls_close_no_shared_connection() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let token = token("access", "a", None);
    gateway.auth().login(login("a")).await.unwrap();
    gateway.send_as(&token, "GET", "/embed?sentence=a").await;
    let before = connections_to(&backend);
    let message = Bytes::from_static(b"\0\0\0\0\x03\x0a\x01a");
    for path in ["/muse.v1.AuthService/Login", "/muse.v1.EmbedderService/Embed"] {
        let mut client = http2(gateway.address).await;
        for _ in 0..20 {
            let mut open = Vec::new();
            for _ in 0..100 {
                client = client.ready().await.unwrap();
                let request = grpc(gateway.address, path).header("authorization", format!("Bearer {token}"));
                let (response, mut body) = client.send_request(request.body(()).unwrap(), false).unwrap();
                body.send_data(message.clone(), true).unwrap();
                open.push((response, body));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
            for (_, body) in &mut open {
                body.send_reset(Http2Reason::CANCEL);
            }
        }
        gateway.auth().login(login("a")).await.unwrap();
        gateway.embedder().embed(bearing(&token, EmbedRequest::default())).await.unwrap();
    }
    assert_eq!(connections_to(&backend), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_of_one_address_are_bounded() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--max-connections-per-address", "20"]).await;
    let address = gateway.address;
    let rejected = tokio::task::spawn_blocking(move || {
        let silent: Vec<TcpStream> = (0..30).map(|_| TcpStream::connect(address).unwrap()).collect();
        let closed = |mut stream: &TcpStream| {
            stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            match stream.read(&mut [0]) {
                Ok(0) => true,
                Err(failure) => failure.kind() == ErrorKind::ConnectionReset,
                Ok(_) => false,
            }
        };
        silent.iter().filter(|stream| closed(stream)).count()
    });
    // The connection of the test's client may still be open.
    assert!((10..=12).contains(&rejected.await.unwrap()));
    let other_address = SocketAddr::from(([127, 0, 0, 9], 0));
    let other = socket_from(other_address, address);
    assert!(
        exchange_on(other, b"GET /.well-known/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            .starts_with("HTTP/1.1 404")
    );
}

/// A connection from another address of this machine.
fn socket_from(local: SocketAddr, remote: SocketAddr) -> TcpStream {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    let connected = std::thread::spawn(move || {
        runtime.block_on(async {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket.bind(local).unwrap();
            socket.connect(remote).await.unwrap().into_std().unwrap()
        })
    });
    let stream = connected.join().unwrap();
    stream.set_nonblocking(false).unwrap();
    stream
}

fn exchange_on(mut stream: TcpStream, request: &[u8]) -> String {
    stream.write_all(request).unwrap();
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response);
    response
}

#[tokio::test(flavor = "multi_thread")]
async fn open_calls_of_one_user_are_bounded() {
    let backend = Backend::start().await;
    let options = ["--max-calls-per-user", "10", "--max-streams-per-user", "3"];
    let gateway = Gateway::ready(&backend, &options).await;
    let token = token("access", "a", None);
    let mut client = http2(gateway.address).await;
    let mut open = Vec::new();
    let mut call = async |path: &str, token: &str| {
        client = client.clone().ready().await.unwrap();
        let request = grpc(gateway.address, path).header("authorization", format!("Bearer {token}"));
        client.send_request(request.body(()).unwrap(), false).unwrap()
    };
    for _ in 0..3 {
        open.push(call("/muse.v1.EmbedderService/EmbedStream", &token).await);
    }
    // The gateway admits calls in any order: wait until it has admitted these.
    for (response, _) in &mut open {
        assert_eq!(response.await.unwrap().status(), StatusCode::OK);
    }
    let (rejected, _) = call("/muse.v1.EmbedderService/EmbedStream", &token).await;
    let rejected = tonic::Status::from_header_map(rejected.await.unwrap().headers()).unwrap();
    assert_eq!(
        (rejected.code(), Error::from(&rejected).reason()),
        (Code::ResourceExhausted, Reason::Overloaded)
    );
    assert!(rejected.message().contains("3 streams of one user"), "{rejected}");
    for _ in 0..7 {
        open.push(call("/muse.v1.EmbedderService/Embed", &token).await);
    }
    // A call counts as soon as the gateway has admitted it. One that is admitted while a request of this loop is open is rejected,
    // so there is a further one each time.
    let response = loop {
        open.push(call("/muse.v1.EmbedderService/Embed", &token).await);
        let response = gateway.send_as(&token, "GET", "/embed?sentence=a").await;
        if response.status != StatusCode::OK {
            break response;
        }
    };
    assert_eq!((response.status.as_u16(), response.header("retry-after")), (429, "1"));
    assert_eq!(response.json()["reason"], "OVERLOADED");
    let openai = gateway.send_as(&token, "GET", "/v1/models").await;
    assert_eq!((openai.status.as_u16(), &openai.json()["error"]["type"]), (429, &"rate_limit_error".into()));
    // Another user is served, and this one when the calls have ended.
    let other = crate::harness::token_of("b", "access", "b", None);
    assert_eq!(gateway.send_as(&other, "GET", "/embed?sentence=a").await.status, StatusCode::OK);
    for (_, body) in &mut open {
        body.send_reset(Http2Reason::CANCEL);
    }
    let started = Instant::now();
    while gateway.send_as(&token, "GET", "/embed?sentence=a").await.status != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(10));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_of_caller_who_left_ends_upstream() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let token = token("access", "a", None);
    for end in ["reset", "close"] {
        let mut client = http2(gateway.address).await;
        let request = grpc(gateway.address, "/muse.v1.EmbedderService/EmbedStream");
        let request = request.header("authorization", format!("Bearer {token}")).body(()).unwrap();
        let (response, mut body) = client.send_request(request, false).unwrap();
        // More than all windows on the way take; the service behind reads none of it.
        let item = Bytes::from([&b"\0\0\0\x04\x03\x0a\x80\x08"[..], &[b'a'; 1024]].concat());
        assert_eq!(item.len(), 5 + 1027);
        let items = item.repeat(64);
        body.reserve_capacity(64 << 20);
        let mut sent = 0;
        while let Ok(Some(Ok(room))) = tokio::time::timeout(
            Duration::from_millis(500),
            std::future::poll_fn(|context| body.poll_capacity(context)),
        )
        .await
        {
            let begin = sent % item.len();
            let part = Bytes::copy_from_slice(&items[begin..begin + room.min(32 << 10)]);
            sent += part.len();
            body.send_data(part, false).unwrap();
        }
        assert!(sent > 100 << 10, "{sent}");
        let started = Instant::now();
        while backend.streams() != 1 {
            assert!(started.elapsed() < Duration::from_secs(10), "the stream was forwarded");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        match end {
            "reset" => body.send_reset(Http2Reason::CANCEL),
            _ => drop((response, body, client)),
        }
        let started = Instant::now();
        while backend.streams() != 0 {
            assert!(started.elapsed() < Duration::from_secs(10), "{end}: the stream is still there");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_response_is_ended() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--send-timeout", "1", "--max-calls-per-user", "1"]).await;
    let token = token("access", "a", None);
    let sentences = "sentence=&".repeat(2_000);
    let stream = tokio::net::TcpStream::connect(gateway.address).await.unwrap();
    // The response has twelve thousand bytes.
    let (client, connection) =
        h2::client::Builder::new().initial_window_size(10).handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    let request = Request::get(format!("http://{}/embed?{sentences}", gateway.address))
        .version(Version::HTTP_2)
        .header("authorization", format!("Bearer {token}"));
    let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    // While it is not read it counts.
    assert_eq!(
        gateway.send_as(&token, "GET", "/embed?sentence=a").await.status,
        StatusCode::TOO_MANY_REQUESTS
    );
    let started = Instant::now();
    while gateway.send_as(&token, "GET", "/embed?sentence=a").await.status != StatusCode::OK {
        assert!(started.elapsed() < Duration::from_secs(10));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(started.elapsed() > Duration::from_millis(500));
}

/// An embedder that serves, by its health, and ends the connection of each other call with a GOAWAY
/// that blames it. Counts those.
async fn embedder_that_closes_connections(calls: Arc<AtomicUsize>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let calls = Arc::clone(&calls);
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                let mut watching = Vec::new();
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    if request.uri().path() != "/grpc.health.v1.Health/Watch" {
                        calls.fetch_add(1, Ordering::Relaxed);
                        connection.abrupt_shutdown(Http2Reason::ENHANCE_YOUR_CALM);
                        let _ = std::future::poll_fn(|context| connection.poll_closed(context)).await;
                        // Closed at once, the socket would be reset, and the frame lost.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        return;
                    }
                    let head = http::Response::builder().header("content-type", "application/grpc");
                    let mut report = respond.send_response(head.body(()).unwrap(), false).unwrap();
                    // SERVING
                    report.send_data(Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false).unwrap();
                    watching.push(report);
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn call_that_broke_a_connection_is_not_retried_elsewhere() {
    let backend = Backend::start().await;
    let calls = Arc::new(AtomicUsize::new(0));
    let mut urls = Vec::new();
    for _ in 0..3 {
        urls.push(format!("http://{}", embedder_that_closes_connections(Arc::clone(&calls)).await));
    }
    let gateway =
        Gateway::start_before(&backend, &urls.join(","), Box::new(SystemResolver::default()), &[]).await;
    gateway.wait_until_ready().await;
    // All three are known to serve.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let response =
        gateway.embedder().embed(bearing(&token("access", "a", None), EmbedRequest::default())).await;
    assert_eq!(response.unwrap_err().code(), Code::Unavailable);
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}
