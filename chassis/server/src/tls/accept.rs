//! Server side: accepts connections. Each handshake runs in a task of its own, with a timeout.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use futures::{Stream, stream};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, rustls::ServerConfig};
use tracing::{debug, warn};

use super::{ServerTls, Socket, explain};
use muse_telemetry::log_throttle::LogThrottle;

use crate::ConnectionLimits;

/// Timeout of a handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Capacity of the queue of connections whose handshake is complete.
const QUEUE: usize = 64;
/// The first byte of a connection with TLS: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// The response to a client that uses HTTP/1.1 without TLS.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https:// instead";
/// Time and bytes for the lingering close of a rejected connection.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 10);

/// Starts accepted connections: with TLS, or in plain text if there is no certificate.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// With mutual TLS, failed handshakes are logged as warnings, because all clients are services
    /// of the stack. On the public port they are logged at level DEBUG.
    throttle: Option<LogThrottle>,
}

impl Acceptor {
    /// An acceptor that reloads the files, within an async runtime.
    #[must_use]
    pub fn new(tls: Option<&ServerTls>) -> Self {
        let throttle = tls.is_some_and(ServerTls::is_mutual).then(LogThrottle::default);
        Self { tls: tls.map(ServerTls::follow), throttle }
    }

    /// The connection after its handshake; `None`, with a log line, if the handshake fails.
    pub async fn begin(&self, stream: TcpStream, peer: SocketAddr) -> Option<Socket> {
        let Some(latest) = &self.tls else { return Some(Socket::plain(stream)) };
        let acceptor = TlsAcceptor::from(Arc::clone(&latest.borrow()));
        match timeout(HANDSHAKE_TIMEOUT, handshake(acceptor, stream)).await {
            Ok(Ok(socket)) => return Some(socket),
            Ok(Err(reason)) if self.throttle.as_ref().is_some_and(|throttle| throttle.allows(&reason)) => {
                warn!(%peer, "a connection was rejected: {reason}");
            }
            Ok(Err(reason)) => debug!(%peer, "a connection was rejected: {reason}"),
            Err(_) => debug!(%peer, "a handshake timed out"),
        }
        None
    }
}

async fn handshake(acceptor: TlsAcceptor, mut stream: TcpStream) -> Result<Socket, String> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        Ok(1) if first == [HANDSHAKE_RECORD] => (),
        Ok(1) => {
            let _ = stream.write_all(NOT_TLS).await;
            close(stream).await;
            return Err("it does not speak TLS".to_owned());
        }
        Ok(_) => return Err(explain::describe(&io::ErrorKind::UnexpectedEof.into())),
        Err(failure) => return Err(explain::describe(&failure)),
    }
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => Ok(Socket::accepted(stream)),
        Err((failure, stream)) => {
            close(stream).await;
            Err(explain::describe(&failure))
        }
    }
}

/// Closes a rejected connection so that the client receives the last write: with unread data, the
/// kernel would reset it.
async fn close(mut stream: TcpStream) {
    let (time, bytes) = LINGER;
    let _ = timeout(time, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await
    })
    .await;
}

/// The connections to `listener` within `limits`, each when its handshake is complete. When the
/// stream is dropped, the connections that it has not returned end, and the listener is closed.
pub fn incoming(
    listener: TcpListener,
    acceptor: Acceptor,
    limits: ConnectionLimits,
) -> impl Stream<Item = io::Result<Socket>> {
    let (ready, mut accepted) = mpsc::channel(QUEUE);
    tokio::spawn(async move {
        loop {
            let (stream, peer, permit) = tokio::select! {
                () = ready.closed() => return,
                connection = limits.accept(&listener) => connection,
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                if let Some(socket) = acceptor.begin(stream, peer).await {
                    // Fails if the server has ended, which also ends the connection.
                    let _ = ready.send(Ok(socket.counted(permit))).await;
                }
            });
        }
    });
    stream::poll_fn(move |cx| accepted.poll_recv(cx))
}
