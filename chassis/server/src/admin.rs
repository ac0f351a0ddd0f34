//! The admin port of a service, plain HTTP/1.1 for operators:
//!
//! - `/livez` returns 200 while the process runs;
//! - `/readyz` returns 200 while the service serves, 503 otherwise;
//! - `/metrics` returns its metrics for Prometheus.
//!
//! It serves from the start of the service, before anything is loaded, to its end, the grace of the shutdown included.

use std::{convert::Infallible, future::ready, net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use muse_proto::run_blocking;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tracing::{debug, warn};

use muse_telemetry::metrics::Metrics;

use crate::{descriptors::private_connection_limit, health::Health};

/// Time for the head of a request, the wait for the next one on its connection included.
const HEAD_WITHIN: Duration = Duration::from_secs(75);
/// The wait when the system has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The admin port of a service.
#[derive(Debug)]
pub struct AdminPort {
    health: Health,
    metrics: Metrics,
}

impl AdminPort {
    /// An admin port that reports the state of `health` and these metrics.
    #[must_use]
    pub fn new(health: Health, metrics: Metrics) -> Self {
        let told = health.clone();
        metrics.pulled_gauge("muse_ready", "Whether the service serves: 1, or else 0.", move || {
            f64::from(u8::from(told.is_serving()))
        });
        Self { health, metrics }
    }

    /// Serves on `listener` until the returned server is dropped.
    #[must_use]
    pub fn serve(self, listener: TcpListener) -> Server {
        Server(tokio::spawn(accept(listener, Arc::new(self))))
    }

    fn answer(&self, method: &Method, path: &str) -> Response<Full<Bytes>> {
        if !matches!(path, "/livez" | "/readyz" | "/metrics") {
            return text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics here\n");
        }
        if !matches!(*method, Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here\n");
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match path {
            "/livez" => text(StatusCode::OK, "alive\n"),
            "/readyz" if self.health.is_serving() => text(StatusCode::OK, "ready\n"),
            "/readyz" => text(StatusCode::SERVICE_UNAVAILABLE, "not ready: the service does not serve\n"),
            _ => {
                // It reads files of /proc and formats hundreds of numbers.
                let metrics = run_blocking(true, || self.metrics.text());
                let mut page = text(StatusCode::OK, metrics);
                page.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(Metrics::FORMAT));
                page
            }
        }
    }
}

/// The running server. Dropping it ends the server and its connections.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn accept(listener: TcpListener, pages: Arc<AdminPort>) {
    let mut connections = JoinSet::new();
    // There are a few probes and a scraper or two.
    let limit = private_connection_limit();
    loop {
        tokio::select! {
            accepted = listener.accept(), if connections.len() < limit => match accepted {
                Ok((stream, peer)) => {
                    connections.spawn(converse(stream, peer, Arc::clone(&pages)));
                }
                Err(failure) => {
                    warn!(%failure, "cannot accept a connection on the private port");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => (),
        }
    }
}

async fn converse(stream: TcpStream, peer: SocketAddr, pages: Arc<AdminPort>) {
    let service = service_fn(move |request: Request<Incoming>| {
        ready(Ok::<_, Infallible>(pages.answer(request.method(), request.uri().path())))
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_WITHIN);
    if let Err(failure) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%peer, %failure, "a connection to the private port broke");
    }
}

fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::health;

    /// The status line and the body of a response, over a new connection.
    async fn ask(address: SocketAddr, method: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: muse\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn each_page_says_what_is_so_now() {
        let (health, _service) = health::not_serving(&[""]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AdminPort::new(health.clone(), Metrics::of("muse-test")).serve(listener);
        let readiness = async || ask(address, "GET", "/readyz").await;
        let answer = |status: &str, body: &str| (format!("HTTP/1.1 {status}"), body.to_owned());
        let (no, not_serving) = ("503 Service Unavailable", "not ready: the service does not serve\n");

        assert_eq!(readiness().await, answer(no, not_serving));
        health.report(true);
        assert_eq!(readiness().await, answer("200 OK", "ready\n"));
        health.stop();
        assert_eq!(readiness().await, answer(no, not_serving));

        assert_eq!(ask(address, "GET", "/livez").await, answer("200 OK", "alive\n"));
        assert_eq!(ask(address, "HEAD", "/livez").await, answer("200 OK", ""));
        assert_eq!(ask(address, "POST", "/livez").await.0, "HTTP/1.1 405 Method Not Allowed");
        assert_eq!(ask(address, "GET", "/").await.0, "HTTP/1.1 404 Not Found");
        let (status, metrics) = ask(address, "GET", "/metrics?a=b").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(metrics.contains("\nmuse_build_info{service=\"muse-test\",version="), "{metrics}");

        drop(server);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_crowd_of_idle_connections_leaves_no_more_than_a_bound_open() {
        let (health, _service) = health::not_serving(&[""]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = AdminPort::new(health, Metrics::of("muse-test")).serve(listener);
        let mut idle = Vec::new();
        for _ in 0..private_connection_limit() {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut waits = Box::pin(ask(address, "GET", "/livez"));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut waits).await;
        assert!(early.is_err(), "one more than the bound was answered: {early:?}");
        idle.pop();
        assert_eq!(waits.await.0, "HTTP/1.1 200 OK");
    }
}
