//! From what a caller sends to what the model is fed: sentences are tokenized, ids are checked.

use std::{ops::ControlFlow, sync::Arc};

use muse_model::{
    sentences::Sentences,
    tokenizer::{BEGIN, END, Tokenizer, TooManyTokens},
};
use muse_proto::{
    Error, Reason, TokenizeResponseWriter,
    v1::{EmbedRequest, TokenIds, TokenizeResponse},
};
use muse_telemetry::metrics::Histogram;
use tokio::sync::Semaphore;

use crate::limits::{Limits, at, too_many_tokens};

/// Text of up to so many bytes is tokenized where it came in. It takes some 20 µs, about as long as to hand it over.
const BRIEF_BYTES: usize = 1024;

/// Text of more bytes takes milliseconds and more.
const LARGE_BYTES: usize = 64 * 1024;

/// Bytes of a token in the response of Tokenize: its text, its id and four positions.
const TOKEN_BYTES: usize = 40;

/// The tokenizer, and what may be given to it.
#[derive(Debug, Clone)]
pub(crate) struct Encoder {
    tokenizer: Arc<Tokenizer>,
    pub(crate) limits: Limits,
    /// How many requests may be tokenized at a time,
    threads: Arc<Semaphore>,
    /// and how many large ones beside them, for which the others need not wait.
    large_threads: Arc<Semaphore>,
    seconds: Histogram,
}

impl Encoder {
    pub(crate) fn new(tokenizer: Tokenizer, limits: Limits, threads: usize, seconds: Histogram) -> Self {
        let semaphore = |threads: usize| Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS)));
        let (large_threads, threads) = (semaphore(threads / 2), semaphore(threads));
        Self { tokenizer: Arc::new(tokenizer), limits, threads, large_threads, seconds }
    }

    /// The ids of each sentence of a request, [`BEGIN`] and [`END`] included.
    pub(crate) async fn request(&self, request: EmbedRequest) -> Result<Sentences, Error> {
        let EmbedRequest { sentences, token_ids, .. } = request;
        if !(sentences.is_empty() || token_ids.is_empty()) {
            let text = "either sentences or token_ids can be given, not both";
            return Err(at(Reason::InvalidArgument, "token_ids", text));
        }
        let (field, ids) = if token_ids.is_empty() {
            let limits = self.limits;
            let encode = move |tokenizer: &Tokenizer, sentences: &[String]| {
                let mut ids = Sentences::default();
                for (index, sentence) in sentences.iter().enumerate() {
                    encode_within(&limits, tokenizer, (index, sentence), &mut ids)?;
                }
                Ok(ids)
            };
            ("sentences", self.tokenize(sentences, encode).await?)
        } else {
            ("token_ids", self.given(&token_ids)?)
        };
        self.limits.check_lengths(field, ids.lengths())?;
        Ok(ids)
    }

    /// The ids of sentences that stand each for itself: one that is refused does not concern the others.
    pub(crate) async fn items(&self, sentences: Vec<String>) -> Result<Vec<Result<Sentences, Error>>, Error> {
        let limits = self.limits;
        let field = || "sentence".to_owned();
        let encode = move |tokenizer: &Tokenizer, sentence: &String| {
            limits.check_sentence(field, sentence)?;
            let (mut ids, most) = (Sentences::default(), limits.max_sentence_tokens);
            ids.try_push(|ids| tokenizer.encode_up_to(most as usize, sentence, ids))
                .map_err(|TooManyTokens| too_many_tokens("sentence", most, "sentence"))?;
            Ok(ids)
        };
        self.beside(sentences, move |tokenizer, sentences| {
            Ok(sentences.iter().map(|sentence| encode(tokenizer, sentence)).collect())
        })
        .await
    }

    /// The most bytes that the response to a Tokenize of these sentences can have, roughly.
    pub(crate) fn most_token_bytes(&self, sentences: &[String]) -> usize {
        let text: usize = sentences.iter().map(String::len).sum();
        TOKEN_BYTES * text.min(self.limits.max_request_tokens as usize)
    }

    /// The tokens of the sentences of a request, encoded as they are found.
    pub(crate) async fn tokens(&self, sentences: Vec<String>) -> Result<TokenizeResponse, Error> {
        let most = self.limits.max_request_tokens;
        let write = move |tokenizer: &Tokenizer, sentences: &[String]| {
            let mut response = TokenizeResponseWriter::default();
            let mut left = most;
            for sentence in sentences {
                let tokenized = tokenizer.tokenize_with(sentence, |token| {
                    if left == 0 {
                        return ControlFlow::Break(());
                    }
                    left -= 1;
                    let piece = tokenizer.piece(token.id).unwrap_or_default();
                    response.token(piece, token.id, span(token.bytes), span(token.chars));
                    ControlFlow::Continue(())
                });
                if tokenized.is_break() {
                    return Err(too_many_tokens("sentences", most, "request"));
                }
                response.end_sentence();
            }
            Ok(response.finish())
        };
        self.tokenize(sentences, write).await
    }

    /// Checks the sentences of a request and turns them into something.
    pub(crate) async fn tokenize<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        turn: impl FnOnce(&Tokenizer, &[String]) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        self.limits.check_count("sentences", sentences.len())?;
        for (index, sentence) in sentences.iter().enumerate() {
            self.limits.check_sentence(|| format!("sentences[{index}]"), sentence)?;
        }
        self.beside(sentences, turn).await
    }

    /// Tokenizes where that may take its time, if it may take long.
    async fn beside<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        turn: impl FnOnce(&Tokenizer, &[String]) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let seconds = self.seconds.clone();
        let turn = move |tokenizer: &Tokenizer, sentences: &[String]| {
            seconds.observe_closure_duration(|| turn(tokenizer, sentences))
        };
        let bytes: usize = sentences.iter().map(String::len).sum();
        if bytes <= BRIEF_BYTES {
            return turn(&self.tokenizer, &sentences);
        }
        let failed = || Error::new(Reason::Internal, "tokenizing failed");
        let threads = if bytes > LARGE_BYTES { &self.large_threads } else { &self.threads };
        let thread = Arc::clone(threads).acquire_owned().await.map_err(|_| failed())?;
        let tokenizer = Arc::clone(&self.tokenizer);
        let turned = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            turn(&tokenizer, &sentences)
        });
        turned.await.map_err(|_| failed())?
    }

    fn given(&self, token_ids: &[TokenIds]) -> Result<Sentences, Error> {
        self.limits.check_count("token_ids", token_ids.len())?;
        let mut sentences = Sentences::default();
        for (index, TokenIds { ids }) in token_ids.iter().enumerate() {
            self.check_ids(index, ids)?;
            sentences.push(|all| {
                all.push(BEGIN);
                all.extend_from_slice(ids);
                all.push(END);
            });
        }
        Ok(sentences)
    }

    /// An id that Tokenize never returns is refused: a mark in the middle would be another sentence than the caller
    /// thinks, and what is not in the vocabulary has no vector.
    fn check_ids(&self, index: usize, ids: &[u32]) -> Result<(), Error> {
        let Some(place) = ids.iter().position(|&id| !self.tokenizer.is_token(id)) else { return Ok(()) };
        let id = ids[place];
        let text = match self.tokenizer.piece(id) {
            Some(piece) => format!("{id} ({piece}) does not occur in a sentence"),
            None => format!("{id} is not in the vocabulary of {} tokens", self.tokenizer.vocabulary_size()),
        };
        Err(at(Reason::InvalidArgument, &format!("token_ids[{index}].ids[{place}]"), &text))
    }
}

/// Appends the ids of a sentence to those of its request, unless that passes a limit.
fn encode_within(
    limits: &Limits,
    tokenizer: &Tokenizer,
    (index, sentence): (usize, &String),
    ids: &mut Sentences,
) -> Result<(), Error> {
    let (of_sentence, of_request) = (limits.max_sentence_tokens, limits.max_request_tokens);
    let left = (of_request as usize).saturating_sub(ids.tokens());
    let most = left.min(of_sentence as usize);
    ids.try_push(|ids| tokenizer.encode_up_to(most, sentence, ids)).map_err(|TooManyTokens| {
        if most == of_sentence as usize {
            too_many_tokens(&format!("sentences[{index}]"), of_sentence, "sentence")
        } else {
            too_many_tokens("sentences", of_request, "request")
        }
    })
}

/// A sentence is far shorter than 4 GiB: `Limits::max_sentence_bytes` is itself a `u32`.
fn span((start, end): (usize, usize)) -> (u32, u32) {
    (start as u32, end as u32)
}
