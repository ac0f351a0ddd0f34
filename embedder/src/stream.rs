//! `EmbedStream`: items come in, and answers go out as they are done.
//!
//! All of a stream is one chain of futures that the connection polls, so nothing is left of it when the caller goes,
//! and a caller who does not read answers is not read from either.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use futures::{
    FutureExt, Stream, StreamExt,
    future::{self, BoxFuture, Either},
    stream::{self, BoxStream},
};
use muse_chassis::{deadline, refusals};
use muse_proto::{
    Error, Reason,
    v1::{EmbedStreamRequest, EmbedStreamResponse, ItemError, embed_stream_response::Result as Outcome},
};
use muse_verifier::{TokenKind, Verifier};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status, Streaming};

use crate::{
    batcher::{Batcher, Batching, User},
    encode::Encoder,
    sentences::Sentences,
    service::user,
};

/// Items that are tokenized together, if so many are there.
const CHUNK: usize = 64;
/// Items of a stream that may be unanswered.
const UNANSWERED: usize = 1024;
/// Forward passes on each thread that the unanswered items of a stream may fill: one runs while the others gather.
const UNANSWERED_PASSES: usize = 3;

/// The answers of a stream.
pub(crate) type Answers = BoxStream<'static, Result<EmbedStreamResponse, Status>>;

/// An item as the model will be fed it, or the end of the stream.
type Item = Result<(String, Result<Sentences, Error>), Status>;
type Answer = BoxFuture<'static, Result<EmbedStreamResponse, Status>>;

/// Serves streams.
#[derive(Debug)]
pub(crate) struct Streams {
    encoder: Encoder,
    batcher: Batcher,
    /// Tokens of a stream that may be unanswered.
    tokens: usize,
    verifier: Verifier,
    shutdown: CancellationToken,
}

impl Streams {
    pub(crate) fn new(
        encoder: Encoder,
        batcher: Batcher,
        batching: Batching,
        verifier: Verifier,
        shutdown: CancellationToken,
    ) -> Self {
        let longest = encoder.limits.max_sentence_tokens as usize;
        let tokens = (UNANSWERED_PASSES * batching.passes * batching.batch_tokens)
            .max(longest)
            .min(Semaphore::MAX_PERMITS);
        Self { encoder, batcher, tokens, verifier, shutdown }
    }

    /// The answers to the items of a stream.
    pub(crate) fn answer(&self, request: Request<Streaming<EmbedStreamRequest>>) -> Answers {
        let user = user(&request);
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

        let cut_short = Arc::new(AtomicBool::new(false));
        let (cut, shutdown) = (Arc::clone(&cut_short), self.shutdown.clone());
        let requests = request.into_inner().take_until(async move {
            shutdown.cancelled().await;
            cut.store(true, Ordering::Relaxed);
        });
        let encoder = self.encoder.clone();
        let unanswered = Arc::new(Semaphore::new(self.tokens));
        let admission = Admission { batcher: self.batcher.clone(), user, unanswered };
        let answers = requests
            .ready_chunks(CHUNK)
            .then(move |chunk| items(encoder.clone(), chunk))
            .flat_map(stream::iter)
            .then(move |item| admission.clone().admit(item))
            .buffer_unordered(UNANSWERED);
        let goodbye = stream::once(async move { cut_short.load(Ordering::Relaxed) })
            .filter_map(|cut_short| ready(cut_short.then(|| Err(shutting_down()))));
        ends_with(stop, answers.chain(goodbye)).boxed()
    }
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
                end = Some(Err(refusals::in_our_terms(failure)));
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
}

impl Admission {
    /// Waits until there is room for an item. Meanwhile no further ones are read.
    async fn admit(self, item: Item) -> Answer {
        match item {
            Ok((id, Ok(ids))) => match self.embedded(ids).await {
                Ok(vector) => async move { Ok(answer(id, vector.await)) }.boxed(),
                Err(refused) => ready(Ok(answer(id, Err(refused)))).boxed(),
            },
            Ok((id, Err(refused))) => ready(Ok(answer(id, Err(refused)))).boxed(),
            Err(end) => ready(Err(end)).boxed(),
        }
    }

    async fn embedded(
        self,
        sentence: Sentences,
    ) -> Result<impl Future<Output = Result<Outcome, Error>> + Send + 'static, Error> {
        let permits = u32::try_from(sentence.tokens()).unwrap_or(u32::MAX);
        let unanswered = self.unanswered.acquire_many_owned(permits).await;
        let embedded = self.batcher.embed_when_there_is_room(&self.user, sentence).await?;
        Ok(async move {
            let embedded = embedded.await?;
            drop(unanswered);
            Ok(Outcome::Embedding(embedded.embeddings.into_iter().next().unwrap_or_default()))
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

/// `answers`, cut off by an error as soon as `stop` says so.
fn ends_with<T: 'static>(
    stop: impl Future<Output = Status> + Send + 'static,
    answers: impl Stream<Item = Result<T, Status>> + Send + 'static,
) -> impl Stream<Item = Result<T, Status>> + Send + 'static {
    let (mut stop, mut answers) = (stop.boxed().fuse(), answers.boxed());
    stream::poll_fn(move |context| match stop.poll_unpin(context) {
        Poll::Ready(status) => Poll::Ready(Some(Err(status))),
        Poll::Pending => answers.poll_next_unpin(context),
    })
}
