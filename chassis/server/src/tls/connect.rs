//! Client side: connections to the other services.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Uri, uri::Scheme};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, sync::watch};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, pki_types::ServerName},
};
use tower::Service;
use tracing::warn;

use super::{ClientTls, Socket, explain};
use muse_telemetry::log_throttle::LogThrottle;

use crate::resolver::SystemResolver;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Connects to the hosts of URLs, with TLS for `https`. The certificate must be valid for the host
/// of the URL.
#[derive(Debug, Clone)]
pub struct Connector {
    tcp: HttpConnector<SystemResolver>,
    /// The address to connect to, in place of that of the URL's host.
    address: Option<Uri>,
    tls: Option<watch::Receiver<Arc<ClientConfig>>>,
    throttle: LogThrottle,
}

impl Connector {
    /// A connector that reloads the files, within an async runtime; without files it supports no
    /// `https`.
    #[must_use]
    pub fn new(tls: Option<&ClientTls>) -> Self {
        let mut tcp = HttpConnector::new_with_resolver(SystemResolver::default());
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        Self { tcp, address: None, tls: tls.map(ClientTls::follow), throttle: LogThrottle::default() }
    }

    /// A connector to one of the addresses of the URL's host. The certificate must be valid for the
    /// host all the same.
    #[must_use]
    pub fn at(&self, address: SocketAddr) -> Self {
        Self { address: format!("http://{address}").parse().ok(), ..self.clone() }
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Socket>;
    type Error = Failure;
    type Future = BoxFuture<'static, Result<Self::Response, Failure>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let connector = self.clone();
        let tcp = self.tcp.call(self.address.clone().unwrap_or_else(|| url.clone()));
        Box::pin(async move {
            let tcp = tcp.await?.into_inner();
            if url.scheme() != Some(&Scheme::HTTPS) {
                return Ok(TokioIo::new(Socket::plain(tcp)));
            }
            connector.secure(&url, tcp).await.map(TokioIo::new)
        })
    }
}

impl Connector {
    async fn secure(self, url: &Uri, tcp: TcpStream) -> Result<Socket, Failure> {
        let latest =
            self.tls.ok_or("https needs the files of MUSE_TLS_CA, MUSE_TLS_CERT and MUSE_TLS_KEY")?;
        let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(host.to_owned())?;
        let connector = TlsConnector::from(Arc::clone(&latest.borrow()));
        let to = url.authority().map(ToString::to_string).unwrap_or_default();
        let log = ConnectionLog { to: to.into(), throttle: self.throttle };
        match connector.connect(name, tcp).await {
            Ok(stream) => Ok(Socket::connected(stream, log)),
            Err(failure) => {
                log.log_failure(&failure);
                Err(explain::describe(&failure).into())
            }
        }
    }
}

/// Logs why a TLS connection failed. In TLS 1.3 the client receives the rejection of its
/// certificate after the handshake has completed on its side.
#[derive(Debug)]
pub(super) struct ConnectionLog {
    to: Arc<str>,
    throttle: LogThrottle,
}

impl ConnectionLog {
    pub(super) fn log_failure(&self, failure: &io::Error) {
        let to = &self.to;
        let text = format!("the connection to {to} failed: {}", explain::describe(failure));
        if self.throttle.allows(&text) {
            warn!("{text}");
        }
    }
}
