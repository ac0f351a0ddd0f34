//! `EmbedStream`: items come in, and answers go out as they are done.
//!
//! The work of a stream is a task, which ends when the connection drops the answers ([`outbox`](crate::outbox)), when the
//! token is no longer valid, or when nobody reads. A caller who does not read answers is not read from either: what is
//! unanswered or unread is bounded in items, tokens and bytes, by stream, and in bytes over all streams.

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
use muse_model::{inference::VECTOR_BYTES, sentences::Sentences};
use muse_proto::{
    Error, Reason,
    v1::{EmbedStreamRequest, EmbedStreamResponse, ItemError, embed_stream_response::Result as Outcome},
};
use muse_server::{deadline, error_mapping};
use muse_verifier::{TokenKind, Verifier};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use crate::{
    batcher::{Batcher, Batching, User},
    encode::Encoder,
    memory::user,
    outbox::{Outbox, Permits},
    slots::Slots,
};

/// Items that are tokenized together, if so many are there.
const CHUNK: usize = 64;
/// Bytes of items after which no further one is tokenized together with them.
const CHUNK_BYTES: usize = 32 << 10;
/// Items of a stream that may be unanswered or whose answers may be unread.
const MAX_UNREAD: usize = 1024;
/// Forward passes on each thread that the unanswered items of a stream may fill: one runs while the others gather.
const UNANSWERED_PASSES: usize = 3;
/// Bytes of unread items and answers for each token that may be unanswered: an item of usual length takes some 3 kB.
const UNREAD_BYTES_PER_TOKEN: usize = 96;
/// The bounds of that: 1,024 short items, and the largest item with room for others.
const MAX_UNREAD_BYTES: usize = 3 << 20;
const MIN_UNREAD_BYTES: usize = 256 << 10;
/// What an item occupies beside its id, its tokens and its vector: its place in the queue and what waits for it.
const ITEM_BYTES: usize = 1024;
/// Bytes that all streams share.
const SHARED_BYTES: usize = 96 << 20;
/// Bytes that each stream has for itself, so that it goes on while others have taken all that is shared.
const OWN_BYTES: usize = 48 << 10;

/// The answers of a stream.
pub(crate) type Answers = BoxStream<'static, Result<EmbedStreamResponse, Status>>;

/// An item as the model will be fed it, or the end of the stream.
type Item = Result<(String, Result<Sentences, Error>), Status>;
/// An answer with what it occupies until it is read.
type Answer = BoxFuture<'static, Result<(EmbedStreamResponse, Permits), Status>>;

/// Serves streams.
#[derive(Debug)]
pub(crate) struct Streams {
    encoder: Encoder,
    batcher: Batcher,
    /// Tokens of a stream that may be unanswered.
    tokens: usize,
    /// Bytes of all streams that may be unread.
    shared: Arc<Semaphore>,
    slots: Slots,
    /// How long answers may be unread.
    read_timeout: Duration,
    verifier: Verifier,
    shutdown: CancellationToken,
}

impl Streams {
    pub(crate) fn new(
        encoder: Encoder,
        batcher: Batcher,
        batching: Batching,
        read_timeout: Duration,
        verifier: Verifier,
        shutdown: CancellationToken,
    ) -> Self {
        let longest = encoder.limits.max_sentence_tokens as usize;
        let tokens = (UNANSWERED_PASSES * batching.passes * batching.batch_tokens)
            .max(longest)
            .min(Semaphore::MAX_PERMITS);
        let (shared, slots) = (Arc::new(Semaphore::new(SHARED_BYTES)), Slots::default());
        Self { encoder, batcher, tokens, shared, slots, read_timeout, verifier, shutdown }
    }

    /// The answers to the items of a stream.
    ///
    /// # Errors
    ///
    /// [`Reason::Overloaded`] if too many streams are open.
    pub(crate) fn answer(&self, request: Request<Streaming<EmbedStreamRequest>>) -> Result<Answers, Error> {
        let user = user(request.extensions());
        let slot = self.slots.open(&user)?;
        let refused = self.verifier.until_refused(request.metadata().as_ref(), Some(TokenKind::Access));
        let too_late = match deadline::of(request.metadata().as_ref()) {
            Some(deadline) => Either::Left(tokio::time::sleep(deadline)),
            None => Either::Right(future::pending()),
        };
        let stop = async move {
            tokio::select! {
                refused = refused => Status::from(refused),
                () = too_late => deadline::passed().into(),
            }
        };

        let outbox = Outbox::new();
        let work = self.work(user, request.into_inner(), outbox.clone());
        let (task_outbox, read_timeout) = (outbox.clone(), self.read_timeout);
        let task = tokio::spawn(async move {
            let work = async {
                work.await;
                // What is unread stays subject to the token and the timeout.
                future::pending::<Infallible>().await
            };
            let status = tokio::select! {
                status = stop => status,
                () = task_outbox.unread_for(read_timeout) => unread(read_timeout),
                never = work => match never {},
            };
            task_outbox.abort(status);
        });
        Ok(outbox.answers(task.abort_handle(), slot).boxed())
    }

    /// Answers the items of a stream until the caller has sent the last one or the service shuts down.
    fn work(
        &self,
        user: User,
        requests: Streaming<EmbedStreamRequest>,
        outbox: Outbox<EmbedStreamResponse>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let cut_short = Arc::new(AtomicBool::new(false));
        let (cut, shutdown) = (Arc::clone(&cut_short), self.shutdown.clone());
        let requests = requests.take_until(async move {
            shutdown.cancelled().await;
            cut.store(true, Ordering::Relaxed);
        });
        let encoder = self.encoder.clone();
        let bytes = (self.tokens * UNREAD_BYTES_PER_TOKEN).clamp(MIN_UNREAD_BYTES, MAX_UNREAD_BYTES);
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        let admission = Admission {
            batcher: self.batcher.clone(),
            user,
            unanswered: semaphore(self.tokens),
            items: semaphore(MAX_UNREAD),
            bytes: semaphore(bytes),
            shared: Arc::clone(&self.shared),
            own: semaphore(OWN_BYTES),
        };
        let answers = chunks(requests)
            .then(move |chunk| items(encoder.clone(), chunk))
            .flat_map(stream::iter)
            .then(move |item| admission.clone().admit(item))
            .buffer_unordered(MAX_UNREAD);
        async move {
            let mut answers = pin!(answers);
            while let Some(answer) = answers.next().await {
                match answer {
                    Ok((answer, permits)) => outbox.push(answer, permits),
                    Err(status) => return outbox.finish(Err(status)),
                }
            }
            let cut_short = cut_short.load(Ordering::Relaxed);
            outbox.finish(if cut_short { Err(shutting_down()) } else { Ok(()) });
        }
    }
}

/// The items that are there, a few at a time.
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

async fn items(encoder: Encoder, chunk: Vec<Result<EmbedStreamRequest, Status>>) -> Vec<Item> {
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
    match encoder.items(sentences).await {
        Ok(encoded) => ids.into_iter().zip(encoded).map(Ok).chain(end).collect(),
        Err(failure) => vec![Err(failure.into())],
    }
}

#[derive(Clone)]
struct Admission {
    batcher: Batcher,
    user: User,
    /// Room for unanswered tokens of this stream.
    unanswered: Arc<Semaphore>,
    /// Room for items that are unanswered or unread,
    items: Arc<Semaphore>,
    /// and for their bytes.
    bytes: Arc<Semaphore>,
    /// Room that all streams share,
    shared: Arc<Semaphore>,
    /// and what this one has beside it.
    own: Arc<Semaphore>,
}

impl Admission {
    /// Waits until there is room for an item. Meanwhile no further ones are read.
    async fn admit(self, item: Item) -> Answer {
        let (id, outcome) = match item {
            Ok(item) => item,
            Err(end) => return ready(Err(end)).boxed(),
        };
        let tokens = outcome.as_ref().map_or(0, Sentences::tokens);
        let bytes = ITEM_BYTES + VECTOR_BYTES + id.len() + tokens * size_of::<u32>();
        let permits = match self.unread(bytes).await {
            Ok(permits) => permits,
            Err(closed) => return ready(Err(closed.into())).boxed(),
        };
        let embedded = match outcome {
            Ok(ids) => self.embedded(ids).await,
            Err(refused) => Err(refused),
        };
        match embedded {
            Ok(vector) => async move { Ok((answer(id, vector.await), permits)) }.boxed(),
            Err(refused) => ready(Ok((answer(id, Err(refused)), permits))).boxed(),
        }
    }

    /// Waits for room for an item of so many bytes until its answer is read.
    async fn unread(&self, bytes: usize) -> Result<Permits, Error> {
        let count = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        let item = Arc::clone(&self.items).acquire_owned().await;
        // The largest item is far smaller than the least room of a stream.
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

    async fn embedded(
        self,
        sentence: Sentences,
    ) -> Result<impl Future<Output = Result<Outcome, Error>> + Send + 'static, Error> {
        let permits = u32::try_from(sentence.tokens()).unwrap_or(u32::MAX);
        let unanswered = self.unanswered.acquire_many_owned(permits).await;
        let embedded = self.batcher.embed_item(&self.user, sentence).await?;
        Ok(async move {
            let embedded = embedded.await?;
            drop(unanswered);
            let mut embedding = embedded.embeddings.into_iter().next().unwrap_or_default();
            // Of the vectors of a whole pass only this one is stored until it is read.
            embedding.packed = Bytes::copy_from_slice(&embedding.packed);
            Ok(Outcome::Embedding(embedding))
        })
    }
}

fn answer(id: String, outcome: Result<Outcome, Error>) -> EmbedStreamResponse {
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

fn unread(timeout: Duration) -> Status {
    let text = format!("no answer was read for {} seconds", timeout.as_secs());
    Error::new(Reason::DeadlineExceeded, text).into()
}
