//! SentencePiece's unigram tokenization, exact to the bit of its scores.
//!
//! The target is the C++ SentencePiece 0.1.99 to 0.2.1 (Kudo and Richardson 2018, arXiv 1808.06226; the unigram model
//! is arXiv 1804.10959): the same ids on every input. Ready-made ports miss that in the normalizer's longest match,
//! in the width of the floats that scores are added in, and in how literal special tokens are treated.

use std::ops::ControlFlow;

mod double_array;
mod model;
mod normalizer;
mod offsets;
mod unigram;

pub use model::TokenizerError;
use model::{Piece, PieceKind, SentencePieceModel, UNKNOWN};
use normalizer::{Normalizer, SourceSpans};
use offsets::CharCounter;
use unigram::Unigram;

/// Id of the token put before each sentence.
pub const BEGIN: u32 = 1;
/// Id of the token put after each sentence.
pub const END: u32 = 2;
/// How many tokens that makes: those that the model is fed in addition to those of a sentence.
pub const MARKS: u32 = 2;

/// Text to tokens. Loaded once, shared by all threads.
#[derive(Debug)]
pub struct Tokenizer {
    normalizer: Normalizer,
    unigram: Unigram,
    pieces: Vec<Piece>,
}

/// A text has more tokens than were allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTokens;

/// A token and the part of the text that it stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// The id in the vocabulary.
    pub id: u32,
    /// Start and end in the text, in bytes.
    pub bytes: (usize, usize),
    /// Start and end in the text, in Unicode scalar values.
    pub chars: (usize, usize),
}

impl Tokenizer {
    /// Reads a serialized SentencePiece model.
    ///
    /// # Errors
    ///
    /// If the bytes are not such a model, or one whose settings this tokenizer does not implement.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let model = SentencePieceModel::parse(bytes)?;
        let normalizer = Normalizer::new(&model)?;
        let unigram = Unigram::new(&model)?;
        Ok(Self { normalizer, unigram, pieces: model.pieces })
    }

    /// The ids that the model is fed: [`BEGIN`], the tokens, [`END`].
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let _ = self.encode_up_to(usize::MAX, text, &mut ids);
        ids
    }

    /// As [`Tokenizer::encode`], appended to `ids`, if that makes at most `most` ids. The text is tokenized no further than
    /// that.
    ///
    /// # Errors
    ///
    /// [`TooManyTokens`]; then `ids` has some of them.
    pub fn encode_up_to(&self, most: usize, text: &str, ids: &mut Vec<u32>) -> Result<(), TooManyTokens> {
        let mut left = most.checked_sub(MARKS as usize).ok_or(TooManyTokens)?;
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 4 + 3);
        self.normalizer.normalize(text, &mut normalized, &mut ());
        ids.push(BEGIN);
        let ended = self.unigram.segment(&normalized, |id, _, _| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            ids.push(id);
            ControlFlow::Continue(())
        });
        ids.push(END);
        if ended.is_break() { Err(TooManyTokens) } else { Ok(()) }
    }

    /// The tokens with the places that they have in the text, without [`BEGIN`] and [`END`].
    #[must_use]
    pub fn tokenize(&self, text: &str) -> Vec<Token> {
        let mut tokens = Vec::new();
        let _ = self.tokenize_with(text, |token| {
            tokens.push(token);
            ControlFlow::Continue(())
        });
        tokens
    }

    /// Passes each of these tokens to `each` until it breaks; the text is tokenized no further than that.
    pub fn tokenize_with(
        &self,
        text: &str,
        mut each: impl FnMut(Token) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 4 + 3);
        let mut spans = SourceSpans::default();
        self.normalizer.normalize(text, &mut normalized, &mut spans);
        let mut chars = CharCounter::new(text);
        self.unigram.segment(&normalized, |id, start, end| {
            let bytes = spans.covering(start, end);
            each(Token { id, bytes, chars: chars.range(bytes) })
        })
    }

    /// The vocabulary's entry of an id.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces.get(id as usize).map(|piece| piece.text.as_str())
    }

    /// Whether [`Tokenizer::tokenize`] can return an id: it is in the vocabulary, and not a mark like [`BEGIN`].
    #[must_use]
    pub fn is_token(&self, id: u32) -> bool {
        id == UNKNOWN || self.pieces.get(id as usize).is_some_and(|piece| piece.kind != PieceKind::Other)
    }

    /// The number of entries of the vocabulary.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.pieces.len()
    }
}
