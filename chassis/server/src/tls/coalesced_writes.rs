//! Write coalescing: small writes are buffered and passed to the kernel together.
//!
//! h2 writes and flushes the data of a response separately from its trailers, and each response
//! separately from others that are ready at the same time. Each is a system call, which costs more
//! than the rest of the work of HTTP/2 for a small message. So a flush is deferred until the next
//! poll of the task, after the tasks that were ready before it have run.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Capacity of the buffer, in bytes; larger writes bypass it.
const CAPACITY: usize = 16 << 10;

/// A stream whose writes are coalesced.
///
/// A deferred flush returns success to its caller and wakes the task. The next read or flush of the
/// task, or a shutdown, writes the buffer, so a connection must do one of them at each poll, as
/// those of hyper do.
#[derive(Debug)]
pub(super) struct CoalescedWrites<S> {
    stream: S,
    /// Unallocated on idle connections.
    buffer: Vec<u8>,
    /// Bytes at the front of the buffer that are already written.
    written: usize,
    /// Whether a flush was deferred.
    flush_deferred: bool,
}

impl<S> CoalescedWrites<S> {
    pub(super) fn new(stream: S) -> Self {
        Self { stream, buffer: Vec::new(), written: 0, flush_deferred: false }
    }

    pub(super) fn get_ref(&self) -> &S {
        &self.stream
    }
}

impl<S: AsyncWrite + Unpin> CoalescedWrites<S> {
    /// Writes the buffer.
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.buffer.len() {
            let left = &self.buffer[self.written..];
            match ready!(Pin::new(&mut self.stream).poll_write(context, left))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.written += written,
            }
        }
        self.buffer = Vec::new();
        self.written = 0;
        self.flush_deferred = false;
        Poll::Ready(Ok(()))
    }

    /// Makes room for `bytes` in the buffer; returns whether they fit.
    fn poll_has_room(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<io::Result<bool>> {
        if self.buffer.len() + bytes > CAPACITY {
            ready!(self.poll_drain(context))?;
        }
        Poll::Ready(Ok(bytes <= CAPACITY))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for CoalescedWrites<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let drained = if this.flush_deferred { this.poll_drain(context) } else { Poll::Pending };
        let before = out.filled().len();
        let read = Pin::new(&mut this.stream).poll_read(context, out);
        // Data that has arrived is returned although the write failed: it may contain the reason.
        let has_read = read.is_ready() && out.filled().len() > before;
        match drained {
            Poll::Ready(Err(failure)) if !has_read => Poll::Ready(Err(failure)),
            _ => read,
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for CoalescedWrites<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if ready!(this.poll_has_room(context, bytes.len()))? {
            this.buffer.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut this.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let length = slices.iter().map(|slice| slice.len()).sum();
        if ready!(this.poll_has_room(context, length))? {
            for slice in slices {
                this.buffer.extend_from_slice(slice);
            }
            return Poll::Ready(Ok(length));
        }
        Pin::new(&mut this.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.buffer.is_empty() {
            if !this.flush_deferred {
                this.flush_deferred = true;
                context.waker().wake_by_ref();
                return Poll::Ready(Ok(()));
            }
            ready!(this.poll_drain(context))?;
        }
        Pin::new(&mut this.stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::{Arc, Mutex},
    };

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// Records each write; reads return endless data.
    #[derive(Default, Clone)]
    struct Writes(Arc<Mutex<Vec<Vec<u8>>>>);

    impl Writes {
        fn lengths(&self) -> Vec<usize> {
            self.0.lock().unwrap().iter().map(Vec::len).collect()
        }
    }

    impl AsyncWrite for Writes {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            let part = &bytes[..bytes.len().min(100_000)];
            self.0.lock().unwrap().push(part.to_vec());
            Poll::Ready(Ok(part.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncRead for Writes {
        fn poll_read(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            out: &mut ReadBuf<'_>,
        ) -> Poll<io::Result<()>> {
            out.put_slice(&[7]);
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn small_writes_are_coalesced_at_the_next_read() {
        let writes = Writes::default();
        let mut stream = CoalescedWrites::new(writes.clone());
        stream.write_all(&[1; 2_000]).await.unwrap();
        stream.flush().await.unwrap();
        stream.write_all(&[2; 50]).await.unwrap();
        assert_eq!(writes.lengths(), [0; 0]);
        stream.read_u8().await.unwrap();
        assert_eq!(writes.lengths(), [2_050]);
    }

    #[tokio::test]
    async fn second_flush_and_shutdown_write_the_buffer() {
        let writes = Writes::default();
        let mut stream = CoalescedWrites::new(writes.clone());
        stream.write_all(&[1; 10]).await.unwrap();
        stream.flush().await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(writes.lengths(), [10]);
        stream.write_all(&[1; 20]).await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(writes.lengths(), [10, 20]);
    }

    #[tokio::test]
    async fn deferred_flush_wakes_the_task() {
        let writes = Writes::default();
        let mut stream = CoalescedWrites::new(writes.clone());
        stream.write_all(&[1; 10]).await.unwrap();
        let mut polls = 0;
        poll_fn(|context| {
            polls += 1;
            let flushed = Pin::new(&mut stream).poll_flush(context);
            assert!(flushed.is_ready());
            if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        assert_eq!(writes.lengths(), [10]);
    }

    #[tokio::test]
    async fn large_writes_bypass_the_buffer_in_order() {
        let writes = Writes::default();
        let mut stream = CoalescedWrites::new(writes.clone());
        stream.write_all(&[1; 10]).await.unwrap();
        stream.write_all(&vec![2; CAPACITY + 1]).await.unwrap();
        assert_eq!(writes.lengths(), [10, CAPACITY + 1]);
        for _ in 0..3 {
            let slices = [&[3; 6_000][..], &[4; 1_000]];
            let slices = slices.map(IoSlice::new);
            assert_eq!(stream.write_vectored(&slices).await.unwrap(), 7_000);
        }
        stream.shutdown().await.unwrap();
        assert_eq!(writes.lengths(), [10, CAPACITY + 1, 14_000, 7_000]);
    }
}
