//! Lingering close (nginx's term): after its last write, a server reads the connection until the
//! client closes it.
//!
//! If a socket is closed while data still arrives, such as a window update, the kernel resets the
//! connection, and the client loses the data that was written last. At a shutdown that would be the
//! end of a large response.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};
use tonic::transport::server::Connected;

/// Time for the other side to close a connection that was written to within the same time.
const LINGER: Duration = Duration::from_secs(2);

/// A stream that is read after its shutdown until the other side closes it.
#[derive(Debug)]
pub struct LingeringClose<S> {
    stream: S,
    written: Option<Instant>,
    state: State,
}

#[derive(Debug)]
enum State {
    Open,
    /// The write side is shut down; the other side may close until then.
    Closing(Pin<Box<Sleep>>),
    Closed,
}

impl<S> LingeringClose<S> {
    /// Wraps a stream.
    pub fn new(stream: S) -> Self {
        Self { stream, written: None, state: State::Open }
    }

    fn record_write<T>(&mut self, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if matches!(written, Poll::Ready(Ok(_))) {
            self.written = Some(Instant::now());
        }
        written
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for LingeringClose<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LingeringClose<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write(context, data);
        this.record_write(written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.stream).poll_write_vectored(context, data);
        this.record_write(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            match &mut this.state {
                State::Open => {
                    ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                    let is_recent = this.written.is_some_and(|written| written.elapsed() < LINGER);
                    this.state =
                        if is_recent { State::Closing(Box::pin(sleep(LINGER))) } else { State::Closed };
                }
                State::Closing(end) => {
                    if end.as_mut().poll(context).is_pending() {
                        ready!(poll_read_out(&mut this.stream, context));
                    }
                    this.state = State::Closed;
                }
                State::Closed => return Poll::Ready(Ok(())),
            }
        }
    }
}

/// Reads and discards data until the other side has closed the stream.
fn poll_read_out(stream: &mut (impl AsyncRead + Unpin), context: &mut Context<'_>) -> Poll<()> {
    let mut discarded = [0; 4096];
    loop {
        let mut buffer = ReadBuf::new(&mut discarded);
        match ready!(Pin::new(&mut *stream).poll_read(context, &mut buffer)) {
            Ok(()) if !buffer.filled().is_empty() => (),
            _ => return Poll::Ready(()),
        }
    }
}

impl<S: Connected> Connected for LingeringClose<S> {
    type ConnectInfo = S::ConnectInfo;

    fn connect_info(&self) -> S::ConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[tokio::test]
    async fn last_write_arrives_while_the_client_still_sends() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = LingeringClose::new(listener.accept().await.unwrap().0);
        client.write_all(b"nobody reads this").await.unwrap();
        let answer = vec![7; 1 << 20];
        let served = tokio::spawn(async move {
            server.write_all(&answer).await.unwrap();
            server.shutdown().await.unwrap();
        });
        let mut received = Vec::new();
        let mut piece = [0; 65_536];
        loop {
            // Each part is acknowledged, as in HTTP/2.
            let length = client.read(&mut piece).await.unwrap();
            if length == 0 {
                break;
            }
            received.extend_from_slice(&piece[..length]);
            client.write_all(b"ack").await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(received.len(), 1 << 20);
        drop(client);
        served.await.unwrap();
    }

    #[tokio::test]
    async fn idle_connection_closes_without_delay() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut server = LingeringClose::new(listener.accept().await.unwrap().0);
        tokio::time::timeout(LINGER / 2, server.shutdown()).await.unwrap().unwrap();
    }
}
