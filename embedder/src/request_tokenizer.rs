//! Turns requests into the input of the model: tokenizes sentences, checks token ids.

use std::sync::Arc;

use muse_model::{
    sentences::TokenizedSentences,
    tokenizer::{BEGIN, END, TokenizeError, Tokenizer, TooManyTokens, Truncation},
};
use muse_proto::{
    Error, Reason, TokenizeResponseWriter,
    limits::Limit,
    v1::{self, EmbedRequest, TokenIds, TokenizeResponse},
};
use muse_telemetry::metrics::Histogram;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::error;

use crate::limits::TokenLimits;

/// Text of up to so many bytes is tokenized on the async thread. It takes some 20 µs, with spans 60
/// µs, about as long as handing it to a blocking thread.
const BRIEF_BYTES: usize = 1024;

/// Text of more bytes takes milliseconds or longer.
const LARGE_BYTES: usize = 64 * 1024;

/// The spans of the tokens of a sentence take up to 450 bytes per byte of text: 7 MiB up to this
/// length, 70 MiB beyond.
const LONG_SENTENCE_BYTES: usize = 16 * 1024;

/// The sentences of that kind that are tokenized at a time, on any number of cores.
const MAX_LONG_SENTENCE_REQUESTS: usize = 2;

/// Bytes of a token in the response of Tokenize: its text, its id and four positions.
const TOKEN_BYTES: usize = 40;

/// The tokenizer, with the limits of requests and of its threads.
#[derive(Debug, Clone)]
pub(crate) struct RequestTokenizer {
    tokenizer: Arc<Tokenizer>,
    pub(crate) limits: TokenLimits,
    /// Limits the requests that are tokenized at a time.
    threads: Arc<Semaphore>,
    /// Limits the large requests separately, so that the others do not wait for them.
    large_threads: Arc<Semaphore>,
    /// Limits the requests for spans of long sentences, which take much memory.
    long_sentences: Arc<Semaphore>,
    seconds: Histogram,
}

impl RequestTokenizer {
    pub(crate) fn new(tokenizer: Tokenizer, limits: TokenLimits, threads: usize, seconds: Histogram) -> Self {
        let semaphore = |threads: usize| Arc::new(Semaphore::new(threads.clamp(1, Semaphore::MAX_PERMITS)));
        Self {
            tokenizer: Arc::new(tokenizer),
            limits,
            threads: semaphore(threads),
            large_threads: semaphore(threads / 2),
            long_sentences: semaphore(MAX_LONG_SENTENCE_REQUESTS.min(threads / 2)),
            seconds,
        }
    }

    /// The ids of each sentence of a request, including [`BEGIN`] and [`END`].
    pub(crate) async fn encode(&self, request: EmbedRequest) -> Result<TokenizedSentences, Error> {
        let EmbedRequest { sentences, token_ids, truncation, .. } = request;
        let truncation = requested_truncation(truncation)?;
        if !(sentences.is_empty() || token_ids.is_empty()) {
            let text = "either sentences or token_ids can be given, not both";
            return Err(invalid("token_ids", text));
        }
        if truncation.is_some() && !token_ids.is_empty() {
            return Err(invalid("truncation", "only sentences are truncated, not token_ids"));
        }
        let (field, ids) = if token_ids.is_empty() {
            let limits = self.limits;
            let encode = move |tokenizer: &Tokenizer, sentences: &[String]| {
                let mut ids = TokenizedSentences::default();
                for (index, sentence) in sentences.iter().enumerate() {
                    match truncation {
                        None => encode_within(&limits, tokenizer, (index, sentence), &mut ids)?,
                        Some(end) => encode_truncated(&limits, tokenizer, (sentence, end), &mut ids)?,
                    }
                }
                Ok(ids)
            };
            ("sentences", self.check_and_run(sentences, encode).await?)
        } else {
            ("token_ids", self.check_token_ids(&token_ids)?)
        };
        self.limits.check(field, ids.lengths())?;
        Ok(ids)
    }

    /// The ids of the items of a stream. An item that is rejected does not affect the others.
    pub(crate) async fn encode_items(
        &self,
        sentences: Vec<String>,
    ) -> Result<Vec<Result<TokenizedSentences, Error>>, Error> {
        let limits = self.limits;
        let field = || "sentence".to_owned();
        let encode = move |tokenizer: &Tokenizer, sentence: &String| {
            Limit::SENTENCE_BYTES.check(field, sentence.len())?;
            let mut ids = TokenizedSentences::default();
            ids.try_push(|ids| tokenizer.encode_up_to(limits.sentence.max(), sentence, ids))
                .map_err(|TooManyTokens| limits.sentence.exceeded("sentence"))?;
            Ok(ids)
        };
        self.run(sentences, move |tokenizer, sentences| {
            Ok(sentences.iter().map(|sentence| encode(tokenizer, sentence)).collect())
        })
        .await
    }

    /// A rough upper bound on the bytes of the response to a Tokenize of these sentences.
    pub(crate) fn max_token_bytes(&self, sentences: &[String]) -> usize {
        let text: usize = sentences.iter().map(String::len).sum();
        TOKEN_BYTES * text.min(self.limits.request.max())
    }

    /// The tokens of the sentences of a request, written into the encoded response.
    pub(crate) async fn tokenize(&self, sentences: Vec<String>) -> Result<TokenizeResponse, Error> {
        let limit = self.limits.request;
        let longest = sentences.iter().map(String::len).max().unwrap_or_default();
        let permit =
            if longest > LONG_SENTENCE_BYTES { Some(permit(&self.long_sentences).await?) } else { None };
        let write = move |tokenizer: &Tokenizer, sentences: &[String]| {
            let _permit = permit;
            let mut response = TokenizeResponseWriter::default();
            let mut left = limit.max();
            for sentence in sentences {
                let tokens = tokenizer.tokenize(left, sentence).map_err(|error| match error {
                    TokenizeError::TooManyTokens => limit.exceeded("sentences"),
                    TokenizeError::Failed(cause) => {
                        error!(%cause, "tokenizing failed");
                        failed()
                    }
                })?;
                left -= tokens.len();
                for token in tokens {
                    let piece = tokenizer.piece(token.id).unwrap_or_default();
                    response.token(piece, token.id, span(token.bytes), span(token.chars));
                }
                response.end_sentence();
            }
            Ok(response.finish())
        };
        self.check_and_run(sentences, write).await
    }

    /// Checks the sentences of a request, and runs `work` on them.
    async fn check_and_run<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        work: impl FnOnce(&Tokenizer, &[String]) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        check_count("sentences", sentences.len())?;
        for (index, sentence) in sentences.iter().enumerate() {
            Limit::SENTENCE_BYTES.check(|| format!("sentences[{index}]"), sentence.len())?;
        }
        self.run(sentences, work).await
    }

    /// Runs `work` on a blocking thread if the text is long.
    async fn run<T: Send + 'static>(
        &self,
        sentences: Vec<String>,
        work: impl FnOnce(&Tokenizer, &[String]) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let seconds = self.seconds.clone();
        let work = move |tokenizer: &Tokenizer, sentences: &[String]| {
            seconds.observe_closure_duration(|| work(tokenizer, sentences))
        };
        let bytes: usize = sentences.iter().map(String::len).sum();
        if bytes <= BRIEF_BYTES {
            return work(&self.tokenizer, &sentences);
        }
        let thread = permit(if bytes > LARGE_BYTES { &self.large_threads } else { &self.threads }).await?;
        let tokenizer = Arc::clone(&self.tokenizer);
        let outcome = tokio::task::spawn_blocking(move || {
            let _thread = thread;
            work(&tokenizer, &sentences)
        });
        outcome.await.map_err(|_| failed())?
    }

    /// The ids of a request that has token ids instead of sentences.
    fn check_token_ids(&self, token_ids: &[TokenIds]) -> Result<TokenizedSentences, Error> {
        check_count("token_ids", token_ids.len())?;
        let mut sentences = TokenizedSentences::default();
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

    /// Rejects an id that Tokenize never returns: a mark inside a sentence would change it in a way
    /// that the caller does not expect, and an id outside the vocabulary has no vector.
    fn check_ids(&self, index: usize, ids: &[u32]) -> Result<(), Error> {
        let Some(position) = ids.iter().position(|&id| !self.tokenizer.is_token(id)) else { return Ok(()) };
        let id = ids[position];
        let text = match self.tokenizer.piece(id) {
            Some(piece) => format!("{id} ({piece}) does not occur in a sentence"),
            None => format!("{id} is not in the vocabulary of {} tokens", self.tokenizer.vocabulary_size()),
        };
        Err(invalid(&format!("token_ids[{index}].ids[{position}]"), &text))
    }
}

/// Waits for a permit.
async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Error> {
    Arc::clone(semaphore).acquire_owned().await.map_err(|_| failed())
}

/// The error of a defect.
fn failed() -> Error {
    Error::new(Reason::Internal, "tokenizing failed")
}

/// Appends the ids of a sentence to those of its request, within the limits.
fn encode_within(
    limits: &TokenLimits,
    tokenizer: &Tokenizer,
    (index, sentence): (usize, &String),
    ids: &mut TokenizedSentences,
) -> Result<(), Error> {
    let left = limits.request.max().saturating_sub(ids.tokens());
    let most = left.min(limits.sentence.max());
    ids.try_push(|ids| tokenizer.encode_up_to(most, sentence, ids)).map_err(|TooManyTokens| {
        if most == limits.sentence.max() {
            limits.sentence.exceeded(&format!("sentences[{index}]"))
        } else {
            limits.request.exceeded("sentences")
        }
    })
}

/// Appends the ids of a sentence, truncated to the limit on a sentence, to those of its request.
/// The limit on a request is checked here, so that the ids take no more memory than it allows.
fn encode_truncated(
    limits: &TokenLimits,
    tokenizer: &Tokenizer,
    (sentence, truncation): (&str, Truncation),
    ids: &mut TokenizedSentences,
) -> Result<(), Error> {
    let most = limits.sentence.max();
    ids.try_push(|ids| tokenizer.encode_truncated(most, truncation, sentence, ids))
        .map_err(|TooManyTokens| limits.sentence.exceeded("sentences"))?;
    if ids.tokens() > limits.request.max() {
        return Err(limits.request.exceeded("sentences"));
    }
    Ok(())
}

/// The value of `EmbedRequest.truncation`.
fn requested_truncation(value: i32) -> Result<Option<Truncation>, Error> {
    match v1::Truncation::try_from(value) {
        Ok(v1::Truncation::Unspecified) => Ok(None),
        Ok(v1::Truncation::Right) => Ok(Some(Truncation::Right)),
        Ok(v1::Truncation::Left) => Ok(Some(Truncation::Left)),
        Err(_) => Err(invalid("truncation", &format!("{value} is not a value of Truncation"))),
    }
}

/// A span as `u32`: a sentence is far shorter than 4 GiB.
fn span((start, end): (usize, usize)) -> (u32, u32) {
    (start as u32, end as u32)
}

/// Checks the number of sentences of a request.
fn check_count(field: &str, count: usize) -> Result<(), Error> {
    if count == 0 {
        return Err(invalid(field, "at least one sentence is needed"));
    }
    Limit::SENTENCES.check(|| field.to_owned(), count)
}

/// The error of an invalid field.
fn invalid(field: &str, text: &str) -> Error {
    Error::new(Reason::InvalidArgument, format!("{field}: {text}")).with_field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_without_sentences_is_invalid() {
        let error = check_count("sentences", 0).unwrap_err();
        assert_eq!(error.reason(), Reason::InvalidArgument);
        assert_eq!(error.to_string(), "sentences: at least one sentence is needed");
        assert!(check_count("sentences", 4_096).is_ok());
        assert_eq!(
            check_count("sentences", 10_000).unwrap_err().to_string(),
            "sentences: 10000 sentences; the limit is 4096 a request"
        );
    }
}
