//! What a request may hold. `GetModel` states it, and a refusal names the number that was passed.

use muse_proto::{
    Error, Reason,
    limits::{MAX_REQUEST_BYTES, MAX_REQUEST_TOKENS, MAX_SENTENCE_BYTES, MAX_SENTENCE_TOKENS, MAX_SENTENCES},
};

/// The limits of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Sentences in a request.
    pub max_sentences: u32,
    /// Bytes of UTF-8 in a sentence.
    pub max_sentence_bytes: u32,
    /// Tokens in a sentence of Embed: the activations of one pass over it are about 20 kB a token.
    pub max_sentence_tokens: u32,
    /// Tokens in one Embed or Tokenize, so that a request ends in seconds and an answer is a few megabytes.
    pub max_request_tokens: u32,
    /// Bytes of an encoded request.
    pub max_request_bytes: u32,
}

impl Limits {
    /// The limits where a request of more than `most` tokens would never be admitted.
    #[must_use]
    pub fn for_requests_of(most: usize) -> Self {
        Self {
            max_sentences: MAX_SENTENCES as u32,
            max_sentence_bytes: MAX_SENTENCE_BYTES as u32,
            max_sentence_tokens: most.min(MAX_SENTENCE_TOKENS) as u32,
            max_request_tokens: most.min(MAX_REQUEST_TOKENS) as u32,
            max_request_bytes: MAX_REQUEST_BYTES as u32,
        }
    }

    /// Checks how many sentences the repeated field `field` holds.
    ///
    /// # Errors
    ///
    /// Names the field and the limit.
    pub fn check_count(&self, field: &str, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Err(at(Reason::InvalidArgument, field, "at least one sentence is needed"));
        }
        let most = self.max_sentences;
        if count > most as usize {
            let text = format!("{count} sentences; the limit is {most} a request");
            return Err(at(Reason::TooLarge, field, &text));
        }
        Ok(())
    }

    /// Checks a sentence, which is to be found in `field`.
    ///
    /// # Errors
    ///
    /// Names the field and the limit.
    pub fn check_sentence(&self, field: impl FnOnce() -> String, sentence: &str) -> Result<(), Error> {
        let (size, most) = (sentence.len(), self.max_sentence_bytes);
        if size <= most as usize {
            return Ok(());
        }
        Err(at(Reason::TooLarge, &field(), &format!("{size} bytes; the limit is {most} a sentence")))
    }

    /// Checks the length in tokens of a sentence of Embed, which is to be found in `field`.
    ///
    /// # Errors
    ///
    /// Names the field and the limit.
    pub fn check_length(&self, field: impl FnOnce() -> String, tokens: usize) -> Result<(), Error> {
        let most = self.max_sentence_tokens;
        if tokens <= most as usize {
            return Ok(());
        }
        Err(at(Reason::TooLarge, &field(), &format!("{tokens} tokens; the limit is {most} a sentence")))
    }

    /// Checks the lengths in tokens of the sentences of one Embed, which are those of the repeated field `field`.
    ///
    /// # Errors
    ///
    /// Names the field, its index and the limit.
    pub fn check_lengths(&self, field: &str, lengths: impl IntoIterator<Item = usize>) -> Result<(), Error> {
        let mut total = 0;
        for (index, length) in lengths.into_iter().enumerate() {
            self.check_length(|| format!("{field}[{index}]"), length)?;
            total += length;
        }
        let most = self.max_request_tokens;
        if total > most as usize {
            let text = format!("{total} tokens; the limit is {most} a request");
            return Err(at(Reason::TooLarge, field, &text));
        }
        Ok(())
    }
}

/// The error of a sentence, to be found in `field`, that was tokenized no further than a limit.
pub(crate) fn too_many_tokens(field: &str, most: u32, of: &str) -> Error {
    at(Reason::TooLarge, field, &format!("more than {most} tokens; the limit is {most} a {of}"))
}

/// An error that names the field at fault, in its text and in its details.
pub(crate) fn at(reason: Reason, field: &str, text: &str) -> Error {
    Error::new(reason, format!("{field}: {text}")).with_field(field)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(outcome: Result<(), Error>) -> (Reason, String, String) {
        let refused = outcome.unwrap_err();
        (refused.reason(), refused.field().unwrap().to_owned(), refused.to_string())
    }

    #[test]
    fn each_limit_is_named_with_its_number() {
        let limits = Limits::for_requests_of(1 << 20);
        let cases = [
            (
                limits.check_count("sentences", 10_000),
                "sentences",
                "10000 sentences; the limit is 4096 a request",
            ),
            (
                limits.check_sentence(|| "sentences[1]".to_owned(), &"x".repeat(1_000_000)),
                "sentences[1]",
                "1000000 bytes; the limit is 262144 a sentence",
            ),
            (
                limits.check_lengths("token_ids", [3, 8_193]),
                "token_ids[1]",
                "8193 tokens; the limit is 8192 a sentence",
            ),
            (
                limits.check_lengths("sentences", [8_192; 33]),
                "sentences",
                "270336 tokens; the limit is 262144 a request",
            ),
        ];
        for (outcome, field, text) in cases {
            assert_eq!(named(outcome), (Reason::TooLarge, field.to_owned(), format!("{field}: {text}")));
        }
        let none = named(limits.check_count("sentences", 0));
        assert_eq!(none.0, Reason::InvalidArgument);
        assert_eq!(none.2, "sentences: at least one sentence is needed");
        assert!(limits.check_sentence(String::new, "").is_ok());
        assert!(limits.check_lengths("sentences", [8_192; 32]).is_ok());
    }

    #[test]
    fn no_request_is_allowed_that_is_never_admitted() {
        let limits = Limits::for_requests_of(100);
        assert_eq!((limits.max_sentence_tokens, limits.max_request_tokens), (100, 100));
    }
}
