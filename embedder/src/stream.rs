//! `EmbedStream`: receives items, and sends a response for each as soon as it is computed.
//!
//! The work of a stream is a task, which ends when the connection drops the responses
//! ([`outbox`](crate::outbox)), when the token is no longer valid, or when nobody reads.
//! Backpressure: a stream stops reading items while too many are unanswered or their responses
//! unread; these are limited in items, tokens and bytes per stream, and in bytes over all streams.

use std::{
    convert::Infallible,
    future::ready,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture, Either},
    stream::{self, BoxStream},
};
use muse_model::{inference::VECTOR_BYTES, sentences::TokenizedSentences};
use muse_proto::{
    Error, Reason,
    v1::{EmbedStreamRequest, EmbedStreamResponse, ItemError, embed_stream_response::Result as Outcome},
};
use muse_server::{deadline, error_mapping};
use muse_verifier::{Credential, Verifier};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};
use tracing::Instrument;

use crate::{
    batcher::{Batcher, Batching, FlowKey},
    outbox::{Outbox, Permits},
    request_tokenizer::RequestTokenizer,
    stream_limit::StreamLimit,
    usage::UsageAccount,
};

/// The most items that are tokenized together, if so many have arrived.
const CHUNK: usize = 64;
/// Bytes of items after which no further one is tokenized together with them.
const CHUNK_BYTES: usize = 32 << 10;
/// Items of a stream that may be unanswered or have an unread response.
const MAX_UNREAD: usize = 1024;
/// Forward passes per thread that the unanswered items of a stream may fill: one runs while the
/// next ones accumulate.
const UNANSWERED_PASSES: usize = 3;
/// Bytes of items and unread responses for each token that may be unanswered; an item of usual
/// length takes some 3 kB.
const UNREAD_BYTES_PER_TOKEN: usize = 96;
/// The upper bound of that: 1,024 short items.
const MAX_UNREAD_BYTES: usize = 3 << 20;
/// The lower bound: the largest item, and room for others.
const MIN_UNREAD_BYTES: usize = 256 << 10;
/// Bytes of an item besides its id, tokens and vector: its entry in the queue and its futures.
const ITEM_BYTES: usize = 1024;
/// Bytes that all streams share.
const SHARED_BYTES: usize = 96 << 20;
/// Bytes reserved for each stream, so that it makes progress while others use up the shared ones.
const OWN_BYTES: usize = 48 << 10;

/// The responses of a stream.
pub(crate) type StreamResponses = BoxStream<'static, Result<EmbedStreamResponse, Status>>;

/// An item with its tokens, or the end of the stream.
type TokenizedItem = Result<(String, Result<TokenizedSentences, Error>), Status>;
/// A response with the permits that it occupies until it is read.
type PendingResponse = BoxFuture<'static, Result<(EmbedStreamResponse, Permits), Status>>;

/// Serves streams.
#[derive(Debug)]
pub(crate) struct Streams {
    tokenizer: RequestTokenizer,
    batcher: Batcher,
    /// Tokens of a stream that may be unanswered.
    tokens: usize,
    /// Bytes of all streams that may be unread.
    shared: Arc<Semaphore>,
    limit: StreamLimit,
    /// How long responses may be unread.
    read_timeout: Duration,
    verifier: Verifier,
    shutdown: CancellationToken,
}

impl Streams {
    pub(crate) fn new(
        tokenizer: RequestTokenizer,
        batcher: Batcher,
        batching: Batching,
        read_timeout: Duration,
        verifier: Verifier,
        shutdown: CancellationToken,
    ) -> Self {
        let longest = tokenizer.limits.sentence.max();
        let tokens = (UNANSWERED_PASSES * batching.passes * batching.batch_tokens)
            .max(longest)
            .min(Semaphore::MAX_PERMITS);
        let (shared, limit) = (Arc::new(Semaphore::new(SHARED_BYTES)), StreamLimit::default());
        Self { tokenizer, batcher, tokens, shared, limit, read_timeout, verifier, shutdown }
    }

    /// Opens a stream, and returns the responses to its items.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if too many streams are open.
    pub(crate) fn open(
        &self,
        request: Request<Streaming<EmbedStreamRequest>>,
    ) -> Result<StreamResponses, Error> {
        let flow = FlowKey::of(request.extensions())?;
        let usage = UsageAccount::of(request.extensions())?;
        let permit = self.limit.acquire(&flow.user)?;
        let token_refused =
            self.verifier.until_invalid(request.metadata().as_ref(), Credential::AccessTokenOrKey);
        let deadline = match deadline::of(request.metadata().as_ref()) {
            Some(deadline) => Either::Left(tokio::time::sleep(deadline)),
            None => Either::Right(future::pending()),
        };
        let stop = async move {
            tokio::select! {
                refused = token_refused => Status::from(refused),
                () = deadline => deadline::passed().into(),
            }
        };

        let outbox = Outbox::new();
        let work = self.work(flow, usage, request.into_inner(), outbox.clone());
        let (task_outbox, read_timeout) = (outbox.clone(), self.read_timeout);
        let task = async move {
            let work = async {
                work.await;
                // Unread responses remain subject to the token and the timeout.
                future::pending::<Infallible>().await
            };
            let status = tokio::select! {
                status = stop => status,
                () = task_outbox.unread_for(read_timeout) => unread_status(read_timeout),
                never = work => match never {},
            };
            task_outbox.abort(status);
        };
        // Its log lines have the id of the request.
        let task = tokio::spawn(task.in_current_span());
        Ok(outbox.into_reader(task.abort_handle(), permit).boxed())
    }

    /// Responds to the items of a stream until its end or the shutdown of the service.
    fn work(
        &self,
        flow: FlowKey,
        usage: UsageAccount,
        requests: Streaming<EmbedStreamRequest>,
        outbox: Outbox<EmbedStreamResponse>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let interrupted = Arc::new(AtomicBool::new(false));
        let (interrupt, shutdown) = (Arc::clone(&interrupted), self.shutdown.clone());
        let requests = requests.take_until(async move {
            shutdown.cancelled().await;
            interrupt.store(true, Ordering::Relaxed);
        });
        let tokenizer = self.tokenizer.clone();
        let bytes = (self.tokens * UNREAD_BYTES_PER_TOKEN).clamp(MIN_UNREAD_BYTES, MAX_UNREAD_BYTES);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let window = StreamWindow {
            batcher: self.batcher.clone(),
            flow,
            usage: usage.clone(),
            unanswered: semaphore(self.tokens),
            items: semaphore(MAX_UNREAD),
            bytes: semaphore(bytes),
            shared: Arc::clone(&self.shared),
            own: semaphore(OWN_BYTES),
        };
        let mut quota = StreamQuota { usage, was_refused: false };
        let responses = chunks(requests)
            .then(move |chunk| tokenize(tokenizer.clone(), quota.check(), chunk))
            .flat_map(stream::iter)
            .then(move |item| window.clone().admit(item))
            .buffer_unordered(MAX_UNREAD);
        async move {
            let mut responses = pin!(responses);
            while let Some(response) = responses.next().await {
                match response {
                    Ok((response, permits)) => outbox.push(response, permits),
                    Err(status) => return outbox.finish(Err(status)),
                }
            }
            let interrupted = interrupted.load(Ordering::Relaxed);
            outbox.finish(if interrupted { Err(shutting_down()) } else { Ok(()) });
        }
    }
}

/// The items that have arrived, in chunks.
fn chunks(
    requests: impl Stream<Item = Result<EmbedStreamRequest, Status>> + Send + 'static,
) -> impl Stream<Item = Vec<Result<EmbedStreamRequest, Status>>> + Send + 'static {
    let size = |item: &Result<EmbedStreamRequest, Status>| {
        item.as_ref().map_or(0, |item| item.id.len() + item.sentence.len())
    };
    stream::unfold(requests.fuse().boxed(), move |mut requests| async move {
        let first = requests.next().await?;
        let mut bytes = size(&first);
        let mut chunk = vec![first];
        while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
            let Some(Some(item)) = requests.next().now_or_never() else { break };
            bytes += size(&item);
            chunk.push(item);
        }
        Some((chunk, requests))
    })
}

/// The quota of a stream, which is checked for each chunk of items.
struct StreamQuota {
    usage: UsageAccount,
    /// Whether the stream was counted as refused.
    was_refused: bool,
}

impl StreamQuota {
    /// The error of the next items if the quota is exhausted. It counts once for a stream.
    fn check(&mut self) -> Result<(), Error> {
        self.usage.check_quota().inspect_err(|_| {
            if !std::mem::replace(&mut self.was_refused, true) {
                self.usage.record_refusal();
            }
        })
    }
}

/// Tokenizes a chunk of items, unless their caller's quota is exhausted.
async fn tokenize(
    tokenizer: RequestTokenizer,
    quota: Result<(), Error>,
    chunk: Vec<Result<EmbedStreamRequest, Status>>,
) -> Vec<TokenizedItem> {
    let (mut ids, mut sentences, mut end) = (Vec::new(), Vec::new(), None);
    for request in chunk {
        match request {
            Ok(EmbedStreamRequest { id, sentence }) => {
                ids.push(id);
                sentences.push(sentence);
            }
            Err(failure) => {
                end = Some(Err(error_mapping::map_status(failure)));
                break;
            }
        }
    }
    if let Err(exhausted) = quota {
        return ids.into_iter().map(|id| Ok((id, Err(exhausted.clone())))).chain(end).collect();
    }
    match tokenizer.encode_items(sentences).await {
        Ok(encoded) => ids.into_iter().zip(encoded).map(Ok).chain(end).collect(),
        Err(failure) => vec![Err(failure.into())],
    }
}

/// The window of a stream: how much of it may be unanswered or unread.
#[derive(Clone)]
struct StreamWindow {
    batcher: Batcher,
    flow: FlowKey,
    usage: UsageAccount,
    /// Unanswered tokens.
    unanswered: Arc<Semaphore>,
    /// Items that are unanswered or unread.
    items: Arc<Semaphore>,
    /// The bytes of these items.
    bytes: Arc<Semaphore>,
    /// Bytes that all streams share.
    shared: Arc<Semaphore>,
    /// Bytes that are reserved for this stream.
    own: Arc<Semaphore>,
}

impl StreamWindow {
    /// Waits until the window has room for an item. Meanwhile the stream reads no further ones.
    async fn admit(self, item: TokenizedItem) -> PendingResponse {
        let (id, outcome) = match item {
            Ok(item) => item,
            Err(end) => return ready(Err(end)).boxed(),
        };
        let tokens = outcome.as_ref().map_or(0, TokenizedSentences::tokens);
        let bytes = ITEM_BYTES + VECTOR_BYTES + id.len() + tokens * size_of::<u32>();
        let permits = match self.reserve(bytes).await {
            Ok(permits) => permits,
            Err(closed) => return ready(Err(closed.into())).boxed(),
        };
        let embedded = match outcome {
            Ok(sentence) => self.embed(sentence).await,
            Err(rejected) => Err(rejected),
        };
        match embedded {
            Ok(vector) => async move { Ok((response(id, vector.await), permits)) }.boxed(),
            Err(rejected) => ready(Ok((response(id, Err(rejected)), permits))).boxed(),
        }
    }

    /// Reserves room for an item of so many bytes until its response is read.
    async fn reserve(&self, bytes: usize) -> Result<Permits, Error> {
        let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let item = Arc::clone(&self.items).acquire_owned().await;
        // The largest item is far smaller than the lower bound.
        let own_bound = Arc::clone(&self.bytes).acquire_many_owned(count(bytes.min(MIN_UNREAD_BYTES))).await;
        let room = tokio::select! {
            biased;
            own = Arc::clone(&self.own).acquire_many_owned(count(bytes.min(OWN_BYTES))) => own,
            shared = Arc::clone(&self.shared).acquire_many_owned(count(bytes)) => shared,
        };
        match (item, own_bound, room) {
            (Ok(item), Ok(own_bound), Ok(room)) => Ok(vec![item, own_bound, room]),
            _ => Err(Error::new(Reason::Internal, "a semaphore is closed")),
        }
    }

    /// Queues an item. The outer future ends when the item is in the queue, the inner one when its
    /// vector is computed.
    async fn embed(
        self,
        sentence: TokenizedSentences,
    ) -> Result<impl Future<Output = Result<Outcome, Error>> + Send + 'static, Error> {
        let permits = u32::try_from(sentence.tokens()).unwrap_or(u32::MAX);
        let unanswered = self.unanswered.acquire_many_owned(permits).await;
        let embedded = self.batcher.embed_item(&self.flow, sentence).await?;
        let usage = self.usage;
        Ok(async move {
            let embedded = embedded.await?;
            drop(unanswered);
            usage.record_vectors(&embedded.embeddings);
            let mut embedding = embedded.embeddings.into_iter().next().unwrap_or_default();
            // Copied, so that the vectors of the whole pass are not stored until it is read.
            embedding.packed = Bytes::copy_from_slice(&embedding.packed);
            Ok(Outcome::Embedding(embedding))
        })
    }
}

fn response(id: String, outcome: Result<Outcome, Error>) -> EmbedStreamResponse {
    let result = outcome.unwrap_or_else(|error| {
        Outcome::Error(ItemError {
            code: error.reason().code().into(),
            reason: error.reason().as_str().to_owned(),
            message: error.message().to_owned(),
        })
    });
    EmbedStreamResponse { id, result: Some(result) }
}

fn shutting_down() -> Status {
    Error::new(Reason::Unavailable, "the service shuts down; items without an answer can be sent again")
        .with_retry_after(Duration::from_secs(1))
        .into()
}

fn unread_status(timeout: Duration) -> Status {
    let text = format!("no answer was read for {} seconds", timeout.as_secs());
    Error::new(Reason::DeadlineExceeded, text).into()
}
