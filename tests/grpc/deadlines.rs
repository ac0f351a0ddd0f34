//! Deadlines, timings, and hung services.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, LoginRequest, TokenizeRequest, auth_service_client::AuthServiceClient},
};
use muse_tests::{
    Stack, auth_config, bearing, channel, http_client::HttpClient, login, model_dir, start_auth,
    start_embedder, start_gateway, until, wait_until_serving,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::Code;

use crate::{reason, sentences, timing};

#[tokio::test(flavor = "multi_thread")]
async fn responses_report_the_time_of_each_step() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let start = Instant::now();
    let many = EmbedRequest { sentences: vec!["a b c d e f g".to_owned(); 1_000], ..EmbedRequest::default() };
    let answer = client.embed(bearing(&token, many)).await.unwrap();
    let whole = start.elapsed().as_secs_f64() * 1e3;
    let [queue, tokenize, forward] =
        ["queue", "tokenize", "forward"].map(|step| timing(answer.metadata(), step));
    assert!(queue >= 0.0 && tokenize > 0.0 && forward > 0.0, "{:?}", answer.metadata());
    assert!(queue + tokenize + forward <= whole, "{:?} of {whole}", answer.metadata());
    assert!(forward > whole / 4.0, "{:?} of {whole}", answer.metadata());

    let call = bearing(&token, TokenizeRequest { sentences: vec!["a".to_owned()] });
    let answer = client.tokenize(call).await.unwrap();
    assert!(timing(answer.metadata(), "tokenize") > 0.0);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn late_or_cancelled_request_is_not_computed() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let large = EmbedRequest { sentences: vec!["word ".repeat(1_000); 24], ..EmbedRequest::default() };
    let embed = |request: EmbedRequest, deadline: Option<Duration>| {
        let (mut client, mut call) = (stack.embedder_client(), bearing(&token, request));
        if let Some(deadline) = deadline {
            call.set_timeout(deadline);
        }
        tokio::spawn(async move { client.embed(call).await })
    };
    let first = embed(large.clone(), None);
    tokio::time::sleep(Duration::from_millis(150)).await;
    // Queued behind it: requests whose deadline passes, and requests whose callers cancel.
    let late: Vec<_> = (0..2).map(|_| embed(large.clone(), Some(Duration::from_millis(150)))).collect();
    let gone: Vec<_> = (0..2).map(|_| embed(large.clone(), None)).collect();
    tokio::time::sleep(Duration::from_millis(200)).await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    for call in late {
        let rejected = call.await.unwrap().unwrap_err();
        // Rejected at admission, or ended by the timer of tonic's client or of the server.
        let codes = [Code::ResourceExhausted, Code::Cancelled, Code::DeadlineExceeded];
        assert!(codes.contains(&rejected.code()), "{rejected}");
    }
    let last = embed(sentences(&["a"]), None).await.unwrap().unwrap();
    let first = first.await.unwrap().unwrap();
    let (queue, pass) = (timing(last.metadata(), "queue"), timing(first.metadata(), "forward"));
    // Each of the four would have taken as long as the first.
    assert!(queue < 1.5 * pass, "waited {queue} ms behind a call of {pass} ms");
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hung_service_times_out() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, &[]).await;
    let (to_auth, to_embedder) = (Tunnel::to(auth.address).await, Tunnel::to(embedder.address).await);
    let options = ["--auth-timeout", "1", "--call-timeout", "2"];
    let gateway = start_gateway(to_auth.address, to_embedder.address, &options).await;
    wait_until_serving(channel(gateway.address)).await;
    let token = login(channel(gateway.address)).await.access_token;
    let rest = HttpClient::new(gateway.address);

    to_embedder.hangs.send_replace(true);
    let mut client =
        muse_proto::v1::embedder_service_client::EmbedderServiceClient::new(channel(gateway.address));
    let start = Instant::now();
    let rejected = client.embed(bearing(&token, sentences(&["a"]))).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unavailable, Reason::Unavailable), "{rejected}");
    assert!(Error::from(&rejected).retry_after().is_some());
    assert!(start.elapsed() >= Duration::from_secs(2), "{:?}", start.elapsed());
    let answer = rest.get("/embed?sentence=a", &token).await;
    assert!([503, 504].contains(&answer.status.as_u16()), "{}", answer.status);

    // A shorter deadline of the caller applies. Over gRPC-Web, because tonic's client has its own
    // timer.
    let bearer = format!("Bearer {token}");
    let headers = [
        ("content-type", "application/grpc-web+proto"),
        ("authorization", &bearer),
        ("grpc-timeout", "500m"),
    ];
    let answer = rest.send("POST", "/muse.v1.EmbedderService/Embed", &headers, "\0\0\0\0\x03\x0a\x01a").await;
    let trailers = String::from_utf8_lossy(&answer.body);
    assert!(trailers.contains("grpc-status:4"), "{trailers}");

    to_auth.hangs.send_replace(true);
    let request = LoginRequest { username: "admin".to_owned(), password: "admin".to_owned() };
    let rejected = AuthServiceClient::new(channel(gateway.address)).login(request).await.unwrap_err();
    assert_eq!((rejected.code(), reason(&rejected)), (Code::Unavailable, Reason::Unavailable), "{rejected}");
    let answer = rest.send("POST", "/login?username=admin&password=admin", &[], "").await;
    assert_eq!((answer.status.as_u16(), answer.header("retry-after")), (503, "1"));

    // Calls succeed again after the services resume.
    to_auth.hangs.send_replace(false);
    to_embedder.hangs.send_replace(false);
    until(async || client.embed(bearing(&token, sentences(&["a"]))).await.ok()).await;
    login(channel(gateway.address)).await;
    gateway.stop().await;
    embedder.stop().await;
    auth.stop().await;
}

/// A TCP proxy that can stop forwarding, like a stopped process that accepts connections and never
/// responds.
struct Tunnel {
    address: SocketAddr,
    hangs: watch::Sender<bool>,
}

impl Tunnel {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("the address is free");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (hangs, hung) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let Ok(far) = TcpStream::connect(target).await else { continue };
                let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                tokio::spawn(copy(near_in, far_out, hung.clone()));
                tokio::spawn(copy(far_in, near_out, hung.clone()));
            }
        });
        Self { address, hangs }
    }
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    mut hung: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if hung.wait_for(|hung| !hung).await.is_err() || to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
    }
}
