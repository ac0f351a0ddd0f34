//! A connection, with TLS or without.

use std::{
    io::{self, IoSlice},
    ops::Range,
    pin::Pin,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::{TlsStream, client, server};
use tokio_util::either::Either;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::connect::Watched;

/// What an HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NOTHING: ([u8; PREFACE.len()], Range<usize>) = ([0; PREFACE.len()], 0..0);

/// A connection, with TLS or without.
#[derive(Debug)]
pub struct Socket {
    stream: Either<TcpStream, Box<TlsStream<TcpStream>>>,
    /// The first bytes that the client has sent, and how many of them were looked at and not read yet.
    ahead: ([u8; PREFACE.len()], Range<usize>),
    /// Hears of failures to read.
    watched: Option<Watched>,
}

impl Socket {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self { stream: Either::Left(stream), ahead: NOTHING, watched: None }
    }

    pub(super) fn accepted(stream: server::TlsStream<TcpStream>) -> Self {
        Self { stream: Either::Right(Box::new(stream.into())), ahead: NOTHING, watched: None }
    }

    pub(super) fn watched(stream: client::TlsStream<TcpStream>, watched: Watched) -> Self {
        Self { stream: Either::Right(Box::new(stream.into())), ahead: NOTHING, watched: Some(watched) }
    }

    /// Whether the client speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.stream, Either::Right(_))
    }

    /// Waits until the client has said enough for the version of HTTP to be known, and tells whether it has. What it said
    /// can still be read.
    pub async fn says_its_version(&mut self) -> bool {
        let (said, known) = &mut self.ahead;
        while PREFACE.starts_with(&said[..known.end]) && known.end < PREFACE.len() {
            match self.stream.read(&mut said[known.end..]).await {
                Ok(0) | Err(_) => return false,
                Ok(length) => known.end += length,
            }
        }
        true
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let (said, unread) = &mut this.ahead;
        if unread.start == unread.end {
            let read = Pin::new(&mut this.stream).poll_read(cx, out);
            if let (Poll::Ready(Err(failure)), Some(watched)) = (&read, &this.watched) {
                watched.tell(failure);
            }
            return read;
        }
        let length = unread.len().min(out.remaining());
        out.put_slice(&said[unread.start..unread.start + length]);
        unread.start += length;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl Connected for Socket {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        match &self.stream {
            Either::Left(stream) => stream.connect_info(),
            Either::Right(stream) => stream.get_ref().0.connect_info(),
        }
    }
}
