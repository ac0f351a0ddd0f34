//! The limits of requests, each defined here alone, and their check on the encoded message before
//! memory is allocated for its fields.

use crate::{
    Error, Reason,
    v1::{EmbedRequest, EmbedStreamRequest, TokenizeRequest},
    wire::{Malformed, Value, count_varints, fields},
};

/// Sentences in a request.
pub const MAX_SENTENCES: usize = 4_096;
/// Bytes of UTF-8 in a sentence.
pub const MAX_SENTENCE_BYTES: usize = 262_144;
/// Tokens in a sentence of Embed, `<s>` and `</s>` included.
pub const MAX_SENTENCE_TOKENS: usize = 8_192;
/// Tokens in all sentences of one request together, `<s>` and `</s>` included.
pub const MAX_REQUEST_TOKENS: usize = 262_144;
/// Bytes of an encoded request.
pub const MAX_REQUEST_BYTES: usize = 16 << 20;
/// Bytes of a request to the auth service: at most a name and a password.
pub const MAX_AUTH_REQUEST_BYTES: usize = 64 << 10;
/// Uses of API keys in a report of a verifier to the auth service.
pub const MAX_KEY_USES: usize = 1_000;
/// Counts in a report of usage, which have at most some 120 bytes each.
pub const MAX_USAGE_COUNTS: usize = 500;
/// Bytes of an encoded item of a stream. Up to this size the response to a sentence that is too long is an error of the item.
pub const MAX_ITEM_BYTES: usize = 320 << 10;
/// Bytes of the id of an item of a stream. The server stores it until the response is read.
pub const MAX_ITEM_ID_BYTES: usize = 1_024;
/// Tokens that the model adds to each sentence: `<s>` and `</s>`.
pub const MARKS: usize = 2;

/// A limit, with the text of its error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    max: usize,
    unit: &'static str,
    scope: &'static str,
}

impl Limit {
    /// [`MAX_SENTENCES`] of a request.
    pub const SENTENCES: Self = Self { max: MAX_SENTENCES, unit: "sentences", scope: "a request" };
    /// [`MAX_SENTENCE_BYTES`] of a sentence.
    pub const SENTENCE_BYTES: Self = Self { max: MAX_SENTENCE_BYTES, unit: "bytes", scope: "a sentence" };
    /// [`MAX_SENTENCE_TOKENS`] of a sentence.
    pub const SENTENCE_TOKENS: Self = Self { max: MAX_SENTENCE_TOKENS, unit: "tokens", scope: "a sentence" };
    /// [`MAX_REQUEST_TOKENS`] of a request.
    pub const REQUEST_TOKENS: Self = Self { max: MAX_REQUEST_TOKENS, unit: "tokens", scope: "a request" };
    /// [`MAX_ITEM_ID_BYTES`] of an item.
    pub const ITEM_ID_BYTES: Self = Self { max: MAX_ITEM_ID_BYTES, unit: "bytes", scope: "an item" };

    /// The largest number that is allowed.
    #[must_use]
    pub const fn max(self) -> usize {
        self.max
    }

    /// The limit, or a lower one where a server allows less.
    #[must_use]
    pub fn at_most(self, max: usize) -> Self {
        Self { max: self.max.min(max), ..self }
    }

    /// Checks a number that belongs to `field`.
    ///
    /// # Errors
    ///
    /// [`Reason::TooLarge`], with the field and the limit.
    pub fn check(self, field: impl FnOnce() -> String, count: usize) -> Result<(), Error> {
        if count <= self.max { Ok(()) } else { Err(self.error(&field(), &count.to_string())) }
    }

    /// The error of a number that was counted no further than the limit.
    #[must_use]
    pub fn exceeded(self, field: &str) -> Error {
        self.error(field, &format!("more than {}", self.max))
    }

    fn error(self, field: &str, count: &str) -> Error {
        let Self { max, unit, scope } = self;
        let text = format!("{field}: {count} {unit}; the limit is {max} {scope}");
        Error::new(Reason::TooLarge, text).with_field(field)
    }
}

/// A message whose decoder checks limits first.
pub trait Limited {
    /// Checks an encoded message before it is decoded. Malformed bytes pass: the decoder reports them.
    ///
    /// # Errors
    ///
    /// [`Reason::TooLarge`], with the field and the limit.
    fn check_limits(_encoded: &[u8]) -> Result<(), Error> {
        Ok(())
    }
}

include!(concat!(env!("OUT_DIR"), "/unlimited.rs"));

impl Limited for EmbedRequest {
    fn check_limits(encoded: &[u8]) -> Result<(), Error> {
        let (mut sentences, mut token_ids) = (Count::new("sentences"), Count::new("token_ids"));
        let mut tokens = 0;
        for field in fields(encoded) {
            match field {
                Ok((1, Value::LengthDelimited(sentence))) => sentences.sentence(sentence),
                Ok((2, Value::LengthDelimited(ids))) => {
                    let Ok(count) = count_varints(ids, 1) else { return Ok(()) };
                    tokens += count + MARKS;
                    token_ids.element(Limit::SENTENCE_TOKENS, count + MARKS);
                }
                Ok(_) => (),
                Err(Malformed) => return Ok(()),
            }
        }
        sentences.check()?;
        token_ids.check()?;
        Limit::REQUEST_TOKENS.check(|| "token_ids".to_owned(), tokens)
    }
}

impl Limited for TokenizeRequest {
    fn check_limits(encoded: &[u8]) -> Result<(), Error> {
        let mut sentences = Count::new("sentences");
        for field in fields(encoded) {
            match field {
                Ok((1, Value::LengthDelimited(sentence))) => sentences.sentence(sentence),
                Ok(_) => (),
                Err(Malformed) => return Ok(()),
            }
        }
        sentences.check()
    }
}

impl Limited for EmbedStreamRequest {
    fn check_limits(encoded: &[u8]) -> Result<(), Error> {
        for field in fields(encoded) {
            match field {
                Ok((1, Value::LengthDelimited(id))) => {
                    Limit::ITEM_ID_BYTES.check(|| "id".to_owned(), id.len())?;
                }
                Ok(_) => (),
                Err(Malformed) => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Counts the elements of a repeated field, and records the error of the first that is too large.
struct Count {
    field: &'static str,
    count: usize,
    error: Option<Error>,
}

impl Count {
    fn new(field: &'static str) -> Self {
        Self { field, count: 0, error: None }
    }

    /// Counts an element, of which `count` is limited.
    fn element(&mut self, limit: Limit, count: usize) {
        // Later elements exceed the limit on elements, which is reported instead.
        if self.error.is_none() && self.count < MAX_SENTENCES {
            let field = || format!("{}[{}]", self.field, self.count);
            self.error = limit.check(field, count).err();
        }
        self.count += 1;
    }

    fn sentence(&mut self, sentence: &[u8]) {
        self.element(Limit::SENTENCE_BYTES, sentence.len());
    }

    fn check(self) -> Result<(), Error> {
        Limit::SENTENCES.check(|| self.field.to_owned(), self.count)?;
        self.error.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::v1::TokenIds;

    fn rejected<M: Limited>(encoded: &[u8]) -> (String, String) {
        let error = M::check_limits(encoded).unwrap_err();
        assert_eq!(error.reason(), Reason::TooLarge);
        (error.field().unwrap().to_owned(), error.to_string())
    }

    #[test]
    fn exceeded_limit_names_its_field() {
        let sentences = |sentences| EmbedRequest { sentences, ..EmbedRequest::default() }.encode_to_vec();
        let token_ids = |ids: Vec<usize>| {
            let token_ids = ids.into_iter().map(|count| TokenIds { ids: vec![7; count] }).collect();
            EmbedRequest { token_ids, ..EmbedRequest::default() }.encode_to_vec()
        };
        let cases = [
            (
                sentences(vec![String::new(); 4_097]),
                "sentences",
                "4097 sentences; the limit is 4096 a request",
            ),
            (
                sentences(vec!["a".to_owned(), "x".repeat(262_145)]),
                "sentences[1]",
                "262145 bytes; the limit is 262144 a sentence",
            ),
            (token_ids(vec![0; 4_097]), "token_ids", "4097 sentences; the limit is 4096 a request"),
            (token_ids(vec![8_191]), "token_ids[0]", "8193 tokens; the limit is 8192 a sentence"),
            (token_ids(vec![8_190; 33]), "token_ids", "270336 tokens; the limit is 262144 a request"),
        ];
        for (encoded, field, text) in cases {
            assert_eq!(rejected::<EmbedRequest>(&encoded), (field.to_owned(), format!("{field}: {text}")));
        }
        let item = EmbedStreamRequest { id: "x".repeat(1_025), ..EmbedStreamRequest::default() };
        let text = "id: 1025 bytes; the limit is 1024 an item".to_owned();
        assert_eq!(rejected::<EmbedStreamRequest>(&item.encode_to_vec()), ("id".to_owned(), text));
        // A later occurrence replaces the earlier one, but that is decoded, too.
        let twice = [item.encode_to_vec(), vec![0x0a, 0]].concat();
        assert_eq!(rejected::<EmbedStreamRequest>(&twice).0, "id");
    }

    #[test]
    fn requests_at_the_limits_pass() {
        let most = EmbedRequest { sentences: vec!["x".repeat(4_000); 4_096], ..EmbedRequest::default() };
        assert_eq!(EmbedRequest::check_limits(&most.encode_to_vec()), Ok(()));
        assert_eq!(TokenizeRequest::check_limits(&most.encode_to_vec()), Ok(()));
        let most =
            EmbedRequest { token_ids: vec![TokenIds { ids: vec![7; 8_190] }; 32], ..EmbedRequest::default() };
        assert_eq!(EmbedRequest::check_limits(&most.encode_to_vec()), Ok(()));
        let most = EmbedStreamRequest { id: "x".repeat(1_024), sentence: "x".repeat(300_000) };
        assert_eq!(EmbedStreamRequest::check_limits(&most.encode_to_vec()), Ok(()));
        // The decoder reports malformed bytes.
        assert_eq!(EmbedRequest::check_limits(b"\x0a\x7f"), Ok(()));
    }
}
