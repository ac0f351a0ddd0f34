//! What the response to a call will take, and the memory that is reserved for it until it has been sent.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use http_body::{Frame, SizeHint};
use muse_proto::wire;
use muse_server::memory_budget::Reservation;

/// Bytes of the vector of a sentence.
pub(crate) const VECTOR_BYTES: usize = 2 << 10;
/// Bytes of the tokens of a text, for each of its own: some 30 for a token, which has 4.
const TOKEN_BYTES_PER_TEXT_BYTE: usize = 8;
/// The response of the largest request: 4,096 vectors, or 262,144 tokens.
const LARGEST: usize = 10 << 20;

/// The fields of EmbedRequest that hold sentences.
const SENTENCES: u32 = 1;
const TOKEN_IDS: u32 = 2;

/// About how many bytes the response to a call takes, of which the message is `plain`, unless it is compressed, and has `length`
/// bytes.
pub(crate) fn of_call(method: &str, plain: Option<&[u8]>, length: usize) -> usize {
    match (method, plain) {
        ("Embed", Some(message)) => {
            // What is malformed gets a small answer.
            let count = |field| wire::count_field(message, field).unwrap_or(0);
            of_vectors(count(SENTENCES) + count(TOKEN_IDS))
        }
        ("Tokenize", Some(_)) => of_tokens(length),
        ("Embed" | "Tokenize", None) => LARGEST,
        _ => 0,
    }
}

/// The bytes of so many vectors.
pub(crate) fn of_vectors(sentences: usize) -> usize {
    sentences.saturating_mul(VECTOR_BYTES).min(LARGEST)
}

/// About how many bytes the tokens of a text of so many bytes take.
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
    /// The body, which holds the reservation.
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
