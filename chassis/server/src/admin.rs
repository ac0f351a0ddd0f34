//! The admin port of a service, plain HTTP/1.1 for operators:
//!
//! - `/livez` returns 200 while the process runs;
//! - `/readyz` returns 200 while the service serves, 503 otherwise, with details if there are any;
//! - `/metrics` returns its metrics for Prometheus.
//!
//! It serves from the start of the service, before anything is loaded, to its end, including the
//! grace period of the shutdown.

use std::{net::SocketAddr, time::Duration};

use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use muse_proto::run_blocking;
use muse_telemetry::metrics::Metrics;
use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};
use tracing::debug;

use crate::{ConnectionLimits, descriptors::admin_connection_limit, health::Health};

/// Timeout of the head of a request, including the wait for the next request of a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(75);

/// The admin port of a service.
#[derive(Debug, Clone)]
pub struct AdminPort {
    health: Health,
    metrics: Metrics,
}

impl AdminPort {
    /// An admin port that reports the state of `health` and these metrics.
    #[must_use]
    pub fn new(health: Health, metrics: Metrics) -> Self {
        let reported = health.clone();
        metrics.pulled_gauge("muse_ready", "1 if the service serves, otherwise 0.", move || {
            f64::from(u8::from(reported.is_serving()))
        });
        Self { health, metrics }
    }

    /// Serves on `listener` until the returned server is dropped.
    #[must_use]
    pub fn serve(self, listener: TcpListener) -> Server {
        Server(tokio::spawn(serve(listener, self.router())))
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", only_get(get(|| async { text(StatusCode::OK, "alive\n") })))
            .route("/readyz", only_get(get(Self::readiness)))
            .route("/metrics", only_get(get(Self::metrics)))
            .fallback(|| async {
                text(StatusCode::NOT_FOUND, "there are /livez, /readyz and /metrics here\n")
            })
            .with_state(self)
    }

    async fn readiness(State(admin): State<Self>) -> Response {
        let (status, state) = if admin.health.is_serving() {
            (StatusCode::OK, "ready")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "not ready: the service does not serve")
        };
        let lines: String = admin.health.details().iter().map(|line| format!("{line}\n")).collect();
        text(status, format!("{state}\n{lines}"))
    }

    async fn metrics(State(admin): State<Self>) -> Response {
        // Reads files of /proc and formats hundreds of numbers.
        let metrics = run_blocking(true, || admin.metrics.text());
        let headers = [(header::CONTENT_TYPE, Metrics::FORMAT), (header::CACHE_CONTROL, "no-store")];
        (headers, metrics).into_response()
    }
}

fn only_get(route: MethodRouter<AdminPort>) -> MethodRouter<AdminPort> {
    route.fallback(|| async {
        let rejection = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD are allowed here\n");
        ([(header::ALLOW, "GET, HEAD")], rejection)
    })
}

/// The running server. Dropping it ends the server and its connections.
#[derive(Debug)]
pub struct Server(JoinHandle<()>);

impl Drop for Server {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn serve(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    let limits = ConnectionLimits::total(admin_connection_limit());
    loop {
        tokio::select! {
            (stream, peer, permit) = limits.accept(&listener) => {
                let router = router.clone();
                connections.spawn(async move {
                    serve_connection(stream, peer, router).await;
                    drop(permit);
                });
            }
            Some(_) = connections.join_next() => (),
        }
    }
}

async fn serve_connection(stream: TcpStream, peer: SocketAddr, router: Router) {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    let service = TowerToHyperService::new(router);
    if let Err(failure) = server.serve_connection(TokioIo::new(stream), service).await {
        debug!(%peer, %failure, "a connection to the admin port failed");
    }
}

fn text(status: StatusCode, body: impl IntoResponse) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, body).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;
    use crate::health;

    /// The status line and the body of a response, over a new connection.
    async fn fetch(address: SocketAddr, method: &str, path: &str) -> (String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: muse\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut response = String::new();
        stream.read_to_string(&mut response).await.unwrap();
        let (head, body) = response.split_once("\r\n\r\n").unwrap();
        (head.lines().next().unwrap().to_owned(), body.to_owned())
    }

    #[tokio::test]
    async fn routes_report_the_current_state() {
        let (health, _service) = health::not_serving(&[""]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = AdminPort::new(health.clone(), Metrics::of("muse-test")).serve(listener);
        let readiness = async || fetch(address, "GET", "/readyz").await;
        let answer = |status: &str, body: &str| (format!("HTTP/1.1 {status}"), body.to_owned());
        let (no, not_serving) = ("503 Service Unavailable", "not ready: the service does not serve\n");

        assert_eq!(readiness().await, answer(no, not_serving));
        health.report(true);
        assert_eq!(readiness().await, answer("200 OK", "ready\n"));
        health.describe_with(|| vec!["one".to_owned(), "two".to_owned()]);
        assert_eq!(readiness().await, answer("200 OK", "ready\none\ntwo\n"));
        health.stop();
        assert_eq!(readiness().await, answer(no, &format!("{not_serving}one\ntwo\n")));

        assert_eq!(fetch(address, "GET", "/livez").await, answer("200 OK", "alive\n"));
        assert_eq!(fetch(address, "HEAD", "/livez").await, answer("200 OK", ""));
        assert_eq!(fetch(address, "POST", "/livez").await.0, "HTTP/1.1 405 Method Not Allowed");
        assert_eq!(fetch(address, "GET", "/").await.0, "HTTP/1.1 404 Not Found");
        let (status, metrics) = fetch(address, "GET", "/metrics?a=b").await;
        assert_eq!(status, "HTTP/1.1 200 OK");
        assert!(metrics.contains("\nmuse_build_info{service=\"muse-test\",version="), "{metrics}");

        drop(server);
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn idle_connections_are_bounded() {
        let (health, _service) = health::not_serving(&[""]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let _server = AdminPort::new(health, Metrics::of("muse-test")).serve(listener);
        let mut idle = Vec::new();
        for _ in 0..admin_connection_limit() {
            idle.push(TcpStream::connect(address).await.unwrap());
        }
        let mut waits = Box::pin(fetch(address, "GET", "/livez"));
        let early = tokio::time::timeout(Duration::from_millis(100), &mut waits).await;
        assert!(early.is_err(), "a connection above the limit was served: {early:?}");
        idle.pop();
        assert_eq!(waits.await.0, "HTTP/1.1 200 OK");
    }
}
