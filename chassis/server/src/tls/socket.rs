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

use crate::ConnectionPermit;

use super::{
    coalesced_writes::CoalescedWrites,
    connect::ConnectionLog,
    io_throttle::{BURST, charge, within},
};

/// The connection preface of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const NO_BYTES: ([u8; PREFACE.len()], Range<usize>) = ([0; PREFACE.len()], 0..0);

/// A connection, with TLS or without.
#[derive(Debug)]
pub struct Socket {
    stream: CoalescedWrites<Either<TcpStream, Box<TlsStream<TcpStream>>>>,
    /// The first bytes from the client, and the range of them that was inspected and not read yet.
    ahead: ([u8; PREFACE.len()], Range<usize>),
    /// Logs read failures.
    log: Option<ConnectionLog>,
    /// Counts the connection until it is dropped.
    _permit: Option<ConnectionPermit>,
}

impl Socket {
    pub(super) fn plain(stream: TcpStream) -> Self {
        Self::new(Either::Left(stream), None)
    }

    pub(super) fn accepted(stream: server::TlsStream<TcpStream>) -> Self {
        Self::new(Either::Right(Box::new(stream.into())), None)
    }

    pub(super) fn connected(stream: client::TlsStream<TcpStream>, log: ConnectionLog) -> Self {
        Self::new(Either::Right(Box::new(stream.into())), Some(log))
    }

    fn new(stream: Either<TcpStream, Box<TlsStream<TcpStream>>>, log: Option<ConnectionLog>) -> Self {
        Self { stream: CoalescedWrites::new(stream), ahead: NO_BYTES, log, _permit: None }
    }

    pub(super) fn counted(self, permit: ConnectionPermit) -> Self {
        Self { _permit: Some(permit), ..self }
    }

    /// Whether the client speaks TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        matches!(self.stream.get_ref(), Either::Right(_))
    }

    /// Waits until the client has sent enough to identify the version of HTTP; false if the client
    /// closes the connection before. The bytes can still be read.
    pub async fn read_preface(&mut self) -> bool {
        let (received, known) = &mut self.ahead;
        while PREFACE.starts_with(&received[..known.end]) && known.end < PREFACE.len() {
            match self.stream.read(&mut received[known.end..]).await {
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
        let (received, unread) = &mut this.ahead;
        if unread.start < unread.end {
            let length = unread.len().min(out.remaining());
            out.put_slice(&received[unread.start..unread.start + length]);
            unread.start += length;
            return Poll::Ready(Ok(()));
        }
        let stream = Pin::new(&mut this.stream);
        let before = out.filled().len();
        let read = if out.remaining() <= BURST {
            stream.poll_read(cx, out)
        } else {
            let mut part = ReadBuf::new(out.initialize_unfilled_to(BURST));
            let read = stream.poll_read(cx, &mut part);
            let length = part.filled().len();
            out.advance(length);
            read
        };
        charge(out.filled().len() - before, cx);
        if let (Poll::Ready(Err(failure)), Some(log)) = (&read, &this.log) {
            log.log_failure(failure);
        }
        read
    }
}

/// Charges the bytes of a write.
fn charge_write(written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
    if let Poll::Ready(Ok(bytes)) = written {
        charge(bytes, cx);
    }
    written
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let bytes = &bytes[..bytes.len().min(BURST)];
        charge_write(Pin::new(&mut self.stream).poll_write(cx, bytes), cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match (within(slices, BURST), slices) {
            ([], [first, ..]) => self.poll_write(cx, first),
            (slices, _) => charge_write(Pin::new(&mut self.stream).poll_write_vectored(cx, slices), cx),
        }
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
        match self.stream.get_ref() {
            Either::Left(stream) => stream.connect_info(),
            Either::Right(stream) => stream.get_ref().0.connect_info(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::{io::AsyncWriteExt, net::TcpListener};

    use super::{super::io_throttle::BURST, *};

    /// The bytes that one poll of a task writes until its budget is used up.
    async fn written(to: &mut Socket, bytes: &[u8]) -> usize {
        poll_fn(|cx| {
            let mut sum = 0;
            while let Poll::Ready(wrote) = Pin::new(&mut *to).poll_write(cx, &bytes[sum..]) {
                sum += wrote.unwrap();
            }
            Poll::Ready(sum)
        })
        .await
    }

    #[tokio::test]
    async fn large_transfer_yields_between_bursts_and_arrives_whole() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (ours, theirs) =
            tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        let (mut from, mut to) = (Socket::plain(ours.unwrap()), Socket::plain(theirs.unwrap().0));
        let sent: Vec<u8> = (0..4 << 20).map(|byte: u32| (byte / 251) as u8).collect();
        tokio::task::yield_now().await;
        // The kernel would accept more.
        let first = written(&mut from, &sent).await;
        assert!((1..=BURST).contains(&first), "{first}");

        let sending = async {
            from.write_all(&sent[first..]).await.unwrap();
            from.shutdown().await.unwrap();
        };
        let mut received = vec![0; sent.len() + 1];
        let receiving = async {
            let mut length = 0;
            loop {
                let read = to.read(&mut received[length..]).await.unwrap();
                assert!(read <= BURST, "{read}");
                length += read;
                if read == 0 {
                    return length;
                }
            }
        };
        let ((), length) = tokio::join!(sending, receiving);
        assert!(received[..length] == sent[..]);
    }
}
