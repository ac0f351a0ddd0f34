//! Estimates of the memory of responses, and bodies that hold a reservation until they have been sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use muse_proto::wire;
use muse_server::memory_budget::Reservation;

use super::limits::DIMENSION;

/// Bytes of the vector of a sentence.
const VECTOR_BYTES: usize = DIMENSION * size_of::<f32>();
/// Bytes of tokens for each byte of text: a token takes some 30 bytes, and has 4 bytes of text.
const TOKEN_BYTES_PER_TEXT_BYTE: usize = 8;
/// The response to the largest request: [`MAX_SENTENCES`](muse_proto::limits::MAX_SENTENCES) vectors with their framing, or the
/// tokens of [`MAX_REQUEST_TOKENS`](muse_proto::limits::MAX_REQUEST_TOKENS).
const LARGEST: usize = 10 << 20;

/// The fields of EmbedRequest that hold sentences.
const SENTENCES: u32 = 1;
const TOKEN_IDS: u32 = 2;

/// Estimated bytes of the response to a call, whose message has `length` bytes and is `plain`, unless it is compressed.
pub(crate) fn of_call(method: &str, plain: Option<&[u8]>, length: usize) -> usize {
    match (method, plain) {
        ("Embed", Some(message)) => {
            // A malformed message gets a small response.
            let count = |field| wire::count_field(message, field).unwrap_or(0);
            of_vectors(count(SENTENCES) + count(TOKEN_IDS))
        }
        ("Tokenize", Some(_)) => of_tokens(length),
        ("Embed" | "Tokenize", None) => LARGEST,
        _ => 0,
    }
}

/// Bytes of the vectors of so many sentences.
pub(crate) fn of_vectors(sentences: usize) -> usize {
    sentences.saturating_mul(VECTOR_BYTES).min(LARGEST)
}

/// Estimated bytes of the tokens of a text of so many bytes.
pub(crate) fn of_tokens(text_bytes: usize) -> usize {
    text_bytes.saturating_mul(TOKEN_BYTES_PER_TEXT_BYTE).min(LARGEST)
}

/// The body of a response for which memory is reserved until it has been sent.
#[derive(Debug)]
pub(crate) struct ReservedBody {
    body: Body,
    _reservation: Option<Reservation>,
}

impl ReservedBody {
    /// A body with its reservation, if one was needed.
    pub(crate) fn new(body: Body, reservation: Option<Reservation>) -> Self {
        Self { body, _reservation: reservation }
    }
}

impl http_body::Body for ReservedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
