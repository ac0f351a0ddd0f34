//! The JSON of the tokens of sentences.

use axum::response::Response;
use bytes::Bytes;
use muse_proto::{
    Error, Limited,
    v1::{Span, TokenizedSentence},
    wire::{Value, fields},
};
use prost::Message;
use serde::ser::Error as _;

use crate::api::http_response::ArrayBody;

/// A `TokenizeResponse` with encoded sentences: decoded, a token takes several times its bytes.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct EncodedTokens {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    sentences: Vec<Bytes>,
}

impl Limited for EncodedTokens {}

/// The field `tokens` of `TokenizedSentence`.
const TOKEN: u32 = 1;

/// A property of tokens, which is an array of arrays in the response: one for each sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Property {
    Tokens,
    Ids,
    Bytes,
    Chars,
}

const DEFAULT: &[Property] = &[Property::Tokens];
const DETAILS: &[Property] = &[Property::Tokens, Property::Ids, Property::Bytes, Property::Chars];

/// The response with the tokens, and with `details` also their ids and positions.
pub(super) async fn respond(tokens: EncodedTokens, details: bool) -> Result<Response, Error> {
    let properties = if details { DETAILS } else { DEFAULT };
    let of_all_sentences = |&property| {
        let sentences = tokens.sentences.iter().enumerate();
        sentences.map(move |(index, sentence)| (property, index == 0, sentence.clone()))
    };
    let items: Vec<_> = properties.iter().flat_map(of_all_sentences).collect();
    let array = ArrayBody {
        head: b"{".to_vec(),
        items: items.into_iter(),
        // `write` separates items.
        separator: b"",
        write: |json: &mut Vec<u8>, (property, is_first, sentence): (Property, bool, Bytes)| {
            json.extend_from_slice(if is_first { property.beginning() } else { b"," });
            property.write(json, &sentence)
        },
        tail: b"]}".to_vec(),
    };
    array.respond("application/json").await
}

impl Property {
    /// The JSON from the end of the property before to the first sentence.
    fn beginning(self) -> &'static [u8] {
        match self {
            Self::Tokens => b"\"tokens\":[",
            Self::Ids => b"],\"ids\":[",
            Self::Bytes => b"],\"bytes\":[",
            Self::Chars => b"],\"chars\":[",
        }
    }

    /// Appends the array of an encoded sentence.
    fn write(self, json: &mut Vec<u8>, sentence: &[u8]) -> serde_json::Result<()> {
        if self == Self::Tokens {
            return write_tokens(json, sentence);
        }
        let sentence = TokenizedSentence::decode(sentence).map_err(serde_json::Error::custom)?;
        let positions = |spans: &[Span]| -> Vec<[u32; 2]> {
            spans.iter().map(|&Span { start, end }| [start, end]).collect()
        };
        match self {
            Self::Tokens | Self::Ids => serde_json::to_writer(json, &sentence.ids),
            Self::Bytes => serde_json::to_writer(json, &positions(&sentence.bytes)),
            Self::Chars => serde_json::to_writer(json, &positions(&sentence.chars)),
        }
    }
}

/// Appends the tokens of an encoded sentence as an array of strings.
fn write_tokens(json: &mut Vec<u8>, sentence: &[u8]) -> serde_json::Result<()> {
    json.push(b'[');
    let mut is_first = true;
    for field in fields(sentence) {
        let Ok((TOKEN, Value::LengthDelimited(token))) = field else { continue };
        if !std::mem::replace(&mut is_first, false) {
            json.push(b',');
        }
        serde_json::to_writer(&mut *json, &String::from_utf8_lossy(token))?;
    }
    json.push(b']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use muse_proto::TokenizeResponseWriter;
    use serde_json::{Value, from_slice, json};

    use super::*;

    async fn body(details: bool) -> Value {
        let mut writer = TokenizeResponseWriter::default();
        writer.token("▁é", 300, (0, 2), (0, 1));
        writer.token("a\"\\", 7, (2, 5), (1, 4));
        writer.token("", 0, (5, 5), (4, 4));
        writer.end_sentence();
        writer.end_sentence();
        let encoded = writer.finish().encode_to_vec();
        let response = respond(EncodedTokens::decode(&*encoded).unwrap(), details).await.unwrap();
        from_slice(&response.into_body().collect().await.unwrap().to_bytes()).unwrap()
    }

    #[tokio::test]
    async fn details_are_parallel_to_the_tokens() {
        let tokens = json!([["▁é", "a\"\\", ""], []]);
        assert_eq!(body(false).await, json!({ "tokens": tokens }));
        let expected = json!({
            "tokens": tokens,
            "ids": [[300, 7, 0], []],
            "bytes": [[[0, 2], [2, 5], [5, 5]], []],
            "chars": [[[0, 1], [1, 4], [4, 4]], []],
        });
        assert_eq!(body(true).await, expected);
    }
}
