//! The limits of requests, and their check on the encoded message before memory is allocated for its fields.

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
/// Bytes of an encoded item of a stream: a sentence that is too long is answered with its error up to this size.
pub const MAX_ITEM_BYTES: usize = 320 << 10;
/// Bytes of the id of an item of a stream. The server stores it until the answer is read.
pub const MAX_ITEM_ID_BYTES: usize = 1_024;
/// Tokens that each sentence has beside its own: `<s>` and `</s>`.
const MARKS: usize = 2;

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
                    token_ids
                        .element(|| too_many(count + MARKS, "tokens", MAX_SENTENCE_TOKENS, "a sentence"));
                }
                Ok(_) => (),
                Err(Malformed) => return Ok(()),
            }
        }
        sentences.check()?;
        token_ids.check()?;
        match too_many(tokens, "tokens", MAX_REQUEST_TOKENS, "a request") {
            Some(text) => Err(too_large("token_ids", &text)),
            None => Ok(()),
        }
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
                    if let Some(text) = too_many(id.len(), "bytes", MAX_ITEM_ID_BYTES, "an item") {
                        return Err(too_large("id", &text));
                    }
                }
                Ok(_) => (),
                Err(Malformed) => return Ok(()),
            }
        }
        Ok(())
    }
}

/// Counts the elements of a repeated field, and notes the first that is too large.
struct Count {
    field: &'static str,
    count: usize,
    at_fault: Option<Error>,
}

impl Count {
    fn new(field: &'static str) -> Self {
        Self { field, count: 0, at_fault: None }
    }

    fn element(&mut self, fault: impl FnOnce() -> Option<String>) {
        // Only the first few can be named: of more than that the count is at fault.
        if self.at_fault.is_none()
            && self.count < MAX_SENTENCES
            && let Some(text) = fault()
        {
            self.at_fault = Some(too_large(&format!("{}[{}]", self.field, self.count), &text));
        }
        self.count += 1;
    }

    fn sentence(&mut self, sentence: &[u8]) {
        self.element(|| too_many(sentence.len(), "bytes", MAX_SENTENCE_BYTES, "a sentence"));
    }

    fn check(self) -> Result<(), Error> {
        match too_many(self.count, "sentences", MAX_SENTENCES, "a request") {
            Some(text) => Err(too_large(self.field, &text)),
            None => self.at_fault.map_or(Ok(()), Err),
        }
    }
}

fn too_many(count: usize, unit: &str, limit: usize, of: &str) -> Option<String> {
    (count > limit).then(|| format!("{count} {unit}; the limit is {limit} {of}"))
}

fn too_large(field: &str, text: &str) -> Error {
    Error::new(Reason::TooLarge, format!("{field}: {text}")).with_field(field)
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
    fn each_limit_is_named_with_its_field() {
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
        // Each merges with the one before, which is decoded nevertheless.
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
        // The decoder says what is wrong.
        assert_eq!(EmbedRequest::check_limits(b"\x0a\x7f"), Ok(()));
    }
}
