//! `muse.v1.TokenizeResponse`, hand-written: a token takes 80 bytes in Rust's structures and some 30 on the wire, so the server
//! encodes the message while it tokenizes.

use bytes::{Buf, BufMut, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{self, DecodeContext, WireType, encode_varint},
};

use crate::v1::TokenizedSentence;

/// The tokens of each sentence, decoded by a client or already encoded by the server.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizeResponse {
    /// The sentences, in order.
    pub sentences: Vec<TokenizedSentence>,
    /// Sentences before those, as [`TokenizeResponseWriter`] encoded them. Empty in a message that was decoded.
    pub encoded: Bytes,
}

impl Message for TokenizeResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        buffer.put_slice(&self.encoded);
        encoding::message::encode_repeated(1, &self.sentences, buffer);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => encoding::message::merge_repeated(wire_type, &mut self.sentences, buffer, context),
            _ => encoding::skip_field(wire_type, tag, buffer, context),
        }
    }

    fn encoded_len(&self) -> usize {
        self.encoded.len() + encoding::message::encoded_len_repeated(1, &self.sentences)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Encodes a [`TokenizeResponse`] token by token.
#[derive(Debug, Default)]
pub struct TokenizeResponseWriter {
    response: Vec<u8>,
    /// The fields of the current sentence.
    tokens: Vec<u8>,
    ids: Vec<u8>,
    bytes: Vec<u8>,
    chars: Vec<u8>,
}

impl TokenizeResponseWriter {
    /// Appends a token to the current sentence: its text and id in the vocabulary, and its start and end in the sentence, in
    /// bytes and in characters.
    pub fn token(&mut self, token: &str, id: u32, bytes: (u32, u32), chars: (u32, u32)) {
        length_delimited(1, token.len(), &mut self.tokens);
        self.tokens.extend_from_slice(token.as_bytes());
        encode_varint(u64::from(id), &mut self.ids);
        span(3, bytes, &mut self.bytes);
        span(4, chars, &mut self.chars);
    }

    /// Ends the current sentence; the next token is the first of the next one.
    pub fn end_sentence(&mut self) {
        let packed = if self.ids.is_empty() { 0 } else { 1 + varint_len(self.ids.len()) + self.ids.len() };
        let length = self.tokens.len() + packed + self.bytes.len() + self.chars.len();
        length_delimited(1, length, &mut self.response);
        self.response.append(&mut self.tokens);
        if packed > 0 {
            length_delimited(2, self.ids.len(), &mut self.response);
            self.response.append(&mut self.ids);
        }
        self.response.append(&mut self.bytes);
        self.response.append(&mut self.chars);
    }

    /// The response with all sentences that were ended.
    #[must_use]
    pub fn finish(self) -> TokenizeResponse {
        TokenizeResponse { sentences: Vec::new(), encoded: self.response.into() }
    }
}

fn length_delimited(field: u32, length: usize, buffer: &mut Vec<u8>) {
    encoding::encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

fn span(field: u32, (start, end): (u32, u32), buffer: &mut Vec<u8>) {
    let part =
        |number: u32| if number == 0 { 0 } else { 1 + encoding::encoded_len_varint(u64::from(number)) };
    length_delimited(field, part(start) + part(end), buffer);
    for (tag, number) in [(1, start), (2, end)] {
        if number != 0 {
            encoding::uint32::encode(tag, &number, buffer);
        }
    }
}

fn varint_len(length: usize) -> usize {
    encoding::encoded_len_varint(length as u64)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use crate::v1::Span;

    proptest! {
        #[test]
        fn written_response_decodes_to_its_tokens(
            sentences in vec(vec((".{0,9}", any::<u32>(), any::<(u32, u32)>(), any::<(u32, u32)>()), 0..9), 0..9),
        ) {
            let mut writer = TokenizeResponseWriter::default();
            let mut expected = Vec::new();
            for tokens in &sentences {
                let mut sentence = TokenizedSentence::default();
                for (token, id, bytes, chars) in tokens {
                    writer.token(token, *id, *bytes, *chars);
                    sentence.tokens.push(token.clone());
                    sentence.ids.push(*id);
                    sentence.bytes.push(Span { start: bytes.0, end: bytes.1 });
                    sentence.chars.push(Span { start: chars.0, end: chars.1 });
                }
                writer.end_sentence();
                expected.push(sentence);
            }
            let plain = TokenizeResponse { sentences: expected, encoded: Bytes::new() };
            let written = writer.finish();
            prop_assert_eq!(written.encoded_len(), plain.encoded_len());
            prop_assert_eq!(written.encode_to_vec(), plain.encode_to_vec());
            prop_assert_eq!(TokenizeResponse::decode(&written.encode_to_vec()[..]), Ok(plain));
        }
    }
}
