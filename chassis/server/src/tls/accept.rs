//! A server's side: each connection's handshake is a task of its own, and has little time.

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

/// How long a handshake may take.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(10);
/// Connections whose handshake is complete and that are not served yet.
const READY: usize = 64;
/// The first byte of a connection with TLS: a record of the handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;
/// What a client hears that speaks HTTP/1.1 without TLS.
const NOT_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: 42\r\n\
    Connection: close\r\n\r\nThis port speaks TLS: use https:// instead";
/// For how long, and how much, is read of what a client goes on to say that was refused.
const LISTEN_ON: (Duration, u64) = (Duration::from_secs(1), 64 << 10);

/// Begins connections, with TLS or, where there are no files for that, without.
#[derive(Debug, Clone)]
pub struct Acceptor {
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    /// Strangers who fail are no news, but services of the stack are.
    throttle: Option<LogThrottle>,
}

impl Acceptor {
    /// An acceptor that keeps up with the files, within an async runtime.
    #[must_use]
    pub fn new(tls: Option<&ServerTls>) -> Self {
        let throttle = tls.is_some_and(ServerTls::is_mutual).then(LogThrottle::default);
        Self { tls: tls.map(ServerTls::follow), throttle }
    }

    /// The connection, when its handshake is over; nothing if it fails, which the log tells.
    pub async fn begin(&self, stream: TcpStream, peer: SocketAddr) -> Option<Socket> {
        let Some(latest) = &self.tls else { return Some(Socket::plain(stream)) };
        let acceptor = TlsAcceptor::from(Arc::clone(&latest.borrow()));
        match timeout(HANDSHAKE_WITHIN, handshake(acceptor, stream)).await {
            Ok(Ok(socket)) => return Some(socket),
            Ok(Err(refused)) if self.throttle.as_ref().is_some_and(|throttle| throttle.allows(&refused)) => {
                warn!(%peer, "a connection was refused: {refused}");
            }
            Ok(Err(refused)) => debug!(%peer, "a connection was refused: {refused}"),
            Err(_) => debug!(%peer, "a handshake has taken too long"),
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
        Ok(_) => return Err(explain::failure(&io::ErrorKind::UnexpectedEof.into())),
        Err(failure) => return Err(explain::failure(&failure)),
    }
    match acceptor.accept(stream).into_fallible().await {
        Ok(stream) => Ok(Socket::accepted(stream)),
        Err((failure, stream)) => {
            close(stream).await;
            Err(explain::failure(&failure))
        }
    }
}

/// Closes a connection so that the other side hears what was said last: were something unread, the system would reset it.
async fn close(mut stream: TcpStream) {
    let (time, bytes) = LISTEN_ON;
    let _ = timeout(time, async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(bytes), &mut tokio::io::sink()).await
    })
    .await;
}

/// The connections to `listener` within `limits`, each when its handshake is complete. When the stream is dropped, they end, and
/// the listener is closed.
pub fn incoming(
    listener: TcpListener,
    acceptor: Acceptor,
    limits: ConnectionLimits,
) -> impl Stream<Item = io::Result<Socket>> {
    let (ready, mut accepted) = mpsc::channel(READY);
    tokio::spawn(async move {
        loop {
            let (stream, peer, permit) = tokio::select! {
                () = ready.closed() => return,
                connection = limits.accept(&listener) => connection,
            };
            let (acceptor, ready) = (acceptor.clone(), ready.clone());
            tokio::spawn(async move {
                if let Some(socket) = acceptor.begin(stream, peer).await {
                    // It fails if the server has ended; then the connection ends, too.
                    let _ = ready.send(Ok(socket.counted(permit))).await;
                }
            });
        }
    });
    stream::poll_fn(move |cx| accepted.poll_recv(cx))
}
