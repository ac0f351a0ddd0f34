//! Reserved memory of large requests and responses: limited in bytes, in total and per user.
//!
//! A tower layer reads a message whole before it calls the method, so that a compressed message is
//! inflated on a blocking thread, and memory is reserved before a large one is read: meanwhile the
//! flow control of HTTP/2 stops its sender. Small messages and responses need no reservation. The
//! caller's deadline ends the wait for memory, as any part of a call.
//!
//! A request that the queue would reject is rejected before its message is decoded: in an overload,
//! most are. The estimate of its tokens for that is passed on with the request.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io::{self, Read},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, Bytes, BytesMut};
use flate2::read::GzDecoder;
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
};
use http::{HeaderValue, Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use http_body_util::BodyExt;
use muse_proto::{Error, Reason, limits::MAX_REQUEST_BYTES, run_blocking, v1::embedder_service_server};
use muse_server::{
    deadline::{self, Deadline},
    memory_budget::{MemoryBudget, Reservation},
};
use tokio::time::{Instant, timeout_at};
use tonic::{Status, body::Body, codegen::Service, server::NamedService};

use crate::{
    batcher::{Batcher, FlowKey, UserName},
    limits::TokenLimits,
};

/// Bytes of large requests. Each message counts twice: its buffer, and its sentences.
const REQUEST_BYTES: usize = 192 << 20;
/// Bytes of large responses. Each counts twice: its vectors or tokens, and their encoding.
const RESPONSE_BYTES: usize = 128 << 20;
/// A message or response of up to so many bytes needs no reservation.
const EXEMPT_BYTES: usize = 128 << 10;
/// How long a call waits for memory.
const MEMORY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a message may take to arrive, once its memory is reserved.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// Bytes of a chunk of a message. Frames are copied into chunks, since frames of a byte each would
/// take many times their bytes.
const CHUNK: usize = 64 << 10;
/// Bytes of the flag and the length in front of a message.
const PREFIX: usize = 5;
/// The largest compression ratio of deflate.
const MAX_INFLATION: usize = 1032;
/// Bytes of text per token, slightly more than the average over the languages (3.3 in Polish, 4.0
/// in English, 10 in Thai).
const BYTES_PER_TOKEN: usize = 5;
const GZIP: HeaderValue = HeaderValue::from_static("gzip");

#[derive(Debug)]
struct Budgets {
    requests: MemoryBudget,
    responses: MemoryBudget,
}

impl Budgets {
    fn new(request_bytes: usize, response_bytes: usize) -> Self {
        // Messages count twice.
        let budget = |bytes| MemoryBudget::new(bytes, 2 * EXEMPT_BYTES, MEMORY_TIMEOUT);
        Self { requests: budget(request_bytes), responses: budget(response_bytes) }
    }
}

/// About the number of tokens of a request, by the length of its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct EstimatedTokens(pub(crate) usize);

/// The memory that is reserved for a call until its response is sent.
#[derive(Debug, Clone)]
pub(crate) struct MemoryLease {
    budgets: Arc<Budgets>,
    user: UserName,
    reservations: Arc<Mutex<Vec<Reservation>>>,
}

impl MemoryLease {
    /// Reserves memory for a request of `encoded` bytes on the wire and at most `decoded` bytes
    /// inflated.
    async fn request(&self, encoded: usize, decoded: usize) -> Result<(), Error> {
        let bytes = if encoded == decoded { 2 * encoded } else { encoded + 2 * decoded };
        self.reserve(&self.budgets.requests, bytes).await
    }

    /// Reserves memory for a response of so many bytes.
    pub(crate) async fn response(&self, bytes: usize) -> Result<(), Error> {
        self.reserve(&self.budgets.responses, 2 * bytes).await
    }

    /// Releases all reservations, when the request was processed.
    pub(crate) fn release(&self) {
        // Dropped after the lock is released.
        let released = std::mem::take(&mut *lock(&self.reservations));
        drop(released);
    }

    async fn reserve(&self, budget: &MemoryBudget, bytes: usize) -> Result<(), Error> {
        let reservation = budget.reserve(&self.user, bytes).await?;
        lock(&self.reservations).extend(reservation);
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that holds one of them can panic halfway through a change.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A layer on the methods of the embedder that reserves memory for large messages and responses.
#[derive(Debug, Clone)]
pub(crate) struct ReserveMemory<S> {
    /// Serves the unary methods.
    unary: S,
    /// Serves the streaming method.
    streaming: S,
    budgets: Arc<Budgets>,
    batcher: Batcher,
    limits: TokenLimits,
}

impl<S> ReserveMemory<S> {
    /// A layer on `unary` and `streaming` methods; `batcher` admits requests within `limits`.
    pub(crate) fn new(unary: S, streaming: S, batcher: Batcher, limits: TokenLimits) -> Self {
        let budgets = Arc::new(Budgets::new(REQUEST_BYTES, RESPONSE_BYTES));
        Self { unary, streaming, budgets, batcher, limits }
    }

    /// Estimates the tokens of a request from the length of its message. At most the limit, since a
    /// request that is too large is rejected for that, however full the queue is.
    fn estimate_tokens(&self, length: usize) -> EstimatedTokens {
        EstimatedTokens((length / BYTES_PER_TOKEN).min(self.limits.request.max()))
    }
}

impl<S> NamedService for ReserveMemory<S> {
    const NAME: &'static str = embedder_service_server::SERVICE_NAME;
}

impl<S> Service<Request<Body>> for ReserveMemory<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.unary.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if request.uri().path().ends_with("/EmbedStream") {
            return self.streaming.call(request).boxed();
        }
        let end = deadline::end(request.headers());
        let is_embed = request.uri().path().ends_with("/Embed");
        let flow = match FlowKey::of(request.extensions()) {
            Ok(flow) => flow,
            Err(error) => return ready(Ok(Status::from(error).into_http())).boxed(),
        };
        let (budgets, user) = (Arc::clone(&self.budgets), Arc::clone(&flow.user));
        let lease = MemoryLease { budgets, user, reservations: Arc::default() };
        let mut layer = self.clone();
        async move {
            let read = read_message(request, &lease).await.and_then(|(mut request, length)| {
                if is_embed && length <= MAX_REQUEST_BYTES {
                    let estimate = layer.estimate_tokens(length);
                    layer.batcher.check(&flow, estimate.0, end)?;
                    request.extensions_mut().insert(estimate);
                }
                Ok(request)
            });
            let mut request = match read {
                Ok(request) => request,
                Err(status) => return Ok(status.into_http()),
            };
            request.extensions_mut().insert(lease.clone());
            if let Some(end) = end {
                request.extensions_mut().insert(Deadline(end));
            }
            let response = layer.unary.call(request).await?;
            if lock(&lease.reservations).is_empty() {
                return Ok(response);
            }
            Ok(response.map(|body| Body::new(LeasedBody { body, _lease: lease })))
        }
        .boxed()
    }
}

/// Reads the message of a request, and inflates it if it is compressed with gzip. Returns the
/// request and the length of the message.
async fn read_message(request: Request<Body>, lease: &MemoryLease) -> Result<(Request<Body>, usize), Status> {
    let (mut parts, mut body) = request.into_parts();
    let gzip = parts.headers.get("grpc-encoding") == Some(&GZIP);
    let mut chunks = MessageChunks::default();
    let mut prefix = None;
    let timed_out = |_| Status::from(deadline::passed());
    let mut until = Instant::now() + READ_TIMEOUT;
    while let Some(frame) = timeout_at(until, body.frame()).await.map_err(timed_out)? {
        let Ok(data) = frame?.into_data() else { continue };
        chunks.append(&data);
        if prefix.is_none() {
            prefix = chunks.prefix();
            let Some((compressed, length)) = prefix else { continue };
            if length > MAX_REQUEST_BYTES {
                // The inner service rejects it, and reads no further either.
                break;
            }
            let inflated = length.saturating_mul(MAX_INFLATION).min(MAX_REQUEST_BYTES);
            lease.request(length, if gzip && compressed { inflated } else { length }).await?;
            until = Instant::now() + READ_TIMEOUT;
        }
        if prefix.is_some_and(|(_, length)| chunks.length > PREFIX + length) {
            let text = "a unary call has one message, and more was sent";
            return Err(Error::new(Reason::InvalidArgument, text).into());
        }
    }
    if let Some((true, length)) = prefix
        && gzip
        && chunks.length == PREFIX + length
    {
        chunks = run_blocking(true, || inflate(chunks))?;
        parts.headers.remove("grpc-encoding");
    }
    let length = prefix.map_or(0, |(_, length)| length.max(chunks.length));
    Ok((Request::from_parts(parts, Body::new(chunks)), length))
}

/// Inflates a compressed message, with its prefix, up to the limit of a request.
fn inflate(mut compressed: MessageChunks) -> Result<MessageChunks, Error> {
    compressed.skip_prefix();
    let mut decoder = GzDecoder::new(compressed).take(MAX_REQUEST_BYTES as u64 + 1);
    let mut inflated = MessageChunks::default();
    inflated.append(&[0; PREFIX]);
    let mut buffer = [0; 8192];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => inflated.append(&buffer[..count]),
            Err(failure) => {
                let text = format!("the message is not gzip: {failure}");
                return Err(Error::new(Reason::InvalidArgument, text));
            }
        }
    }
    let length = inflated.length - PREFIX;
    if length > MAX_REQUEST_BYTES {
        let text = format!("the message is too large: it inflates to more than {MAX_REQUEST_BYTES} bytes");
        return Err(Error::new(Reason::TooLarge, text));
    }
    inflated.set_length(length as u32);
    Ok(inflated)
}

/// A message in chunks, each of which is freed when it is read.
#[derive(Debug, Default)]
struct MessageChunks {
    chunks: VecDeque<BytesMut>,
    length: usize,
}

impl MessageChunks {
    fn append(&mut self, mut data: &[u8]) {
        self.length += data.len();
        while !data.is_empty() {
            let room = self.chunks.back().map_or(0, |last| CHUNK - last.len());
            if room == 0 {
                // The first chunk is small, as most messages are.
                let capacity = if self.chunks.is_empty() { data.len().min(CHUNK) } else { CHUNK };
                self.chunks.push_back(BytesMut::with_capacity(capacity));
                continue;
            }
            let (now, later) = data.split_at(room.min(data.len()));
            if let Some(last) = self.chunks.back_mut() {
                last.extend_from_slice(now);
            }
            data = later;
        }
    }

    /// Whether the message is compressed, and its length.
    fn prefix(&self) -> Option<(bool, usize)> {
        let [flag, length @ ..] = self.chunks.front()?.first_chunk::<PREFIX>()?;
        Some((*flag == 1, u32::from_be_bytes(*length) as usize))
    }

    fn skip_prefix(&mut self) {
        if let Some(first) = self.chunks.front_mut() {
            first.advance(PREFIX.min(first.len()));
            self.length -= PREFIX;
        }
    }

    fn set_length(&mut self, length: u32) {
        if let Some(field) = self.chunks.front_mut().and_then(|first| first.get_mut(1..PREFIX)) {
            field.copy_from_slice(&length.to_be_bytes());
        }
    }
}

impl Read for MessageChunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(first) = self.chunks.front_mut() {
            if first.is_empty() {
                self.chunks.pop_front();
                continue;
            }
            let count = first.len().min(buffer.len());
            buffer[..count].copy_from_slice(&first[..count]);
            first.advance(count);
            return Ok(count);
        }
        Ok(0)
    }
}

impl HttpBody for MessageChunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.chunks.pop_front().map(|chunk| Ok(Frame::data(chunk.freeze()))))
    }

    fn is_end_stream(&self) -> bool {
        self.chunks.is_empty()
    }
}

/// The body of a response for which memory is reserved.
struct LeasedBody {
    body: Body,
    _lease: MemoryLease,
}

impl HttpBody for LeasedBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::GzEncoder};
    use http_body_util::{Full, StreamBody};

    use super::*;

    fn lease(budgets: &Arc<Budgets>, user: &str) -> MemoryLease {
        MemoryLease { budgets: Arc::clone(budgets), user: UserName::from(user), reservations: Arc::default() }
    }

    fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
        [&[flag][..], &(message.len() as u32).to_be_bytes(), message].concat()
    }

    fn gzip(message: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(message).unwrap();
        encoder.finish().unwrap()
    }

    async fn read(body: Body, encoding: &str) -> Result<Vec<u8>, Error> {
        let request = Request::builder().header("grpc-encoding", encoding).body(body).unwrap();
        let budgets = Arc::new(Budgets::new(REQUEST_BYTES, RESPONSE_BYTES));
        let read = read_message(request, &lease(&budgets, "a")).await;
        let (whole, _) = read.map_err(|status| Error::from(&status))?;
        assert_eq!(whole.headers().contains_key("grpc-encoding"), encoding != "gzip");
        Ok(whole.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    #[tokio::test]
    async fn large_requests_of_one_user_leave_room_for_another() {
        let budgets = Arc::new(Budgets::new(8 << 20, 8 << 20));
        let (first, second) = (lease(&budgets, "a"), lease(&budgets, "a"));
        first.request(2 << 20, 2 << 20).await.unwrap();
        assert!(second.request(1 << 20, 1 << 20).now_or_never().is_none());
        // Nothing is reserved for small ones.
        second.request(EXEMPT_BYTES, EXEMPT_BYTES).now_or_never().unwrap().unwrap();
        lease(&budgets, "b").request(1 << 20, 1 << 20).now_or_never().unwrap().unwrap();
        first.release();
        second.request(1 << 20, 1 << 20).now_or_never().unwrap().unwrap();
    }

    #[tokio::test]
    async fn message_of_tiny_frames_is_read_whole() {
        let message = framed(0, &vec![7; 200_000]);
        let frames = message.chunks(3).map(|part| Ok::<_, Status>(Frame::data(Bytes::copy_from_slice(part))));
        let body = Body::new(StreamBody::new(futures::stream::iter(frames.collect::<Vec<_>>())));
        assert_eq!(read(body, "identity").await.unwrap(), message);
    }

    #[tokio::test]
    async fn second_message_of_a_unary_call_is_rejected() {
        let twice = [framed(0, b"abc"), framed(0, b"abc")].concat();
        let rejected = read(Body::new(Full::from(twice)), "identity").await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::InvalidArgument);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn gzip_is_inflated_up_to_the_limit() {
        let message = b"some text ".repeat(100_000);
        let body = Body::new(Full::from(framed(1, &gzip(&message))));
        assert_eq!(read(body, "gzip").await.unwrap(), framed(0, &message));
        let largest = vec![0; MAX_REQUEST_BYTES];
        let body = Body::new(Full::from(framed(1, &gzip(&largest))));
        assert_eq!(read(body, "gzip").await.unwrap().len(), PREFIX + MAX_REQUEST_BYTES);
        let bomb = gzip(&vec![0; 64 * MAX_REQUEST_BYTES]);
        let rejected = read(Body::new(Full::from(framed(1, &bomb))), "gzip").await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::TooLarge);
        let rejected = read(Body::new(Full::from(framed(1, b"no gzip"))), "gzip").await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::InvalidArgument);
    }

    #[tokio::test(start_paused = true)]
    async fn body_that_stops_arriving_ends_the_call() {
        let half =
            futures::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from_static(b"\0\0\0\0\x09abc")))]);
        let silent = futures::StreamExt::chain(half, futures::stream::pending());
        let rejected = read(Body::new(StreamBody::new(silent)), "identity").await.unwrap_err();
        assert_eq!(rejected.reason(), Reason::DeadlineExceeded);
    }
}
