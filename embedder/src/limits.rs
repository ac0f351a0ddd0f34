//! The limits on tokens, which `--queue-tokens` may lower: a larger request would never be
//! admitted. [`muse_proto::limits`] defines all limits.

use muse_model::tokenizer;
use muse_proto::{
    Error,
    limits::{self, Limit, MAX_REQUEST_BYTES, MAX_SENTENCE_BYTES, MAX_SENTENCES},
    v1,
};

const _: () = assert!(tokenizer::MARKS as usize == limits::MARKS);

/// The limits on the tokens of Embed and Tokenize.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenLimits {
    /// Tokens in a sentence of Embed: the activations of a pass take about 20 kB per token.
    pub sentence: Limit,
    /// Tokens in a request, so that it takes seconds and its response has a few megabytes.
    pub request: Limit,
}

impl TokenLimits {
    /// The limits where a request of more than `largest_request` tokens would never be admitted.
    #[must_use]
    pub fn for_requests_of(largest_request: usize) -> Self {
        Self {
            sentence: Limit::SENTENCE_TOKENS.at_most(largest_request),
            request: Limit::REQUEST_TOKENS.at_most(largest_request),
        }
    }

    /// Checks the tokens of each sentence of an Embed, the elements of the repeated field `field`,
    /// and of all together.
    ///
    /// # Errors
    ///
    /// [`Reason::TooLarge`](muse_proto::Reason), with the field, its index and the limit.
    pub fn check(&self, field: &str, lengths: impl IntoIterator<Item = usize>) -> Result<(), Error> {
        let mut total = 0;
        for (index, length) in lengths.into_iter().enumerate() {
            self.sentence.check(|| format!("{field}[{index}]"), length)?;
            total += length;
        }
        self.request.check(|| field.to_owned(), total)
    }

    /// All limits of a request, as GetModel returns them.
    #[must_use]
    pub fn to_proto(self) -> v1::Limits {
        v1::Limits {
            max_sentences: MAX_SENTENCES as u32,
            max_sentence_bytes: MAX_SENTENCE_BYTES as u32,
            max_sentence_tokens: self.sentence.max() as u32,
            max_request_tokens: self.request.max() as u32,
            max_request_bytes: MAX_REQUEST_BYTES as u32,
        }
    }
}

#[cfg(test)]
mod tests {
    use muse_proto::Reason;

    use super::*;

    #[test]
    fn exceeded_token_limit_is_named_with_its_field() {
        let limits = TokenLimits::for_requests_of(1 << 20);
        let cases = [
            (
                limits.check("token_ids", [3, 8_193]),
                "token_ids[1]",
                "8193 tokens; the limit is 8192 a sentence",
            ),
            (
                limits.check("sentences", [8_192; 33]),
                "sentences",
                "270336 tokens; the limit is 262144 a request",
            ),
            (
                Err(limits.sentence.exceeded("sentence")),
                "sentence",
                "more than 8192 tokens; the limit is 8192 a sentence",
            ),
        ];
        for (outcome, field, text) in cases {
            let error = outcome.unwrap_err();
            assert_eq!((error.reason(), error.field()), (Reason::TooLarge, Some(field)));
            assert_eq!(error.to_string(), format!("{field}: {text}"));
        }
        assert!(limits.check("sentences", [8_192; 32]).is_ok());
    }

    #[test]
    fn limits_are_at_most_what_the_queue_admits() {
        let limits = TokenLimits::for_requests_of(100).to_proto();
        assert_eq!((limits.max_sentence_tokens, limits.max_request_tokens), (100, 100));
    }
}
