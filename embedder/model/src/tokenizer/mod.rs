//! SentencePiece's unigram tokenizer, with bit-exact scores.
//!
//! It returns the same ids as the C++ SentencePiece 0.1.99 to 0.2.1 (Kudo and Richardson 2018,
//! arXiv 1808.06226; the unigram model is arXiv 1804.10959) for every input. Existing ports differ
//! in the longest match of the normalizer, in the precision of the sums of scores, and in the
//! treatment of literal special tokens.
//!
//! The normalizer and the language model implement the traits of Hugging Face's `tokenizers` crate,
//! which combines them to a [`Pipeline`]. It returns pieces and offsets besides ids. Where only ids
//! are needed, [`Tokenizer::encode`] calls the same parts directly.

use std::ops::ControlFlow;

mod decoder;
mod double_array;
mod language_model;
mod marks;
mod model;
mod normalized_string;
mod normalizer;
mod offsets;
mod pipeline;
#[cfg(test)]
mod tests;
mod unigram;

pub use decoder::Decoder;
pub use marks::Marks;
pub use model::TokenizerError;
use model::{Piece, PieceKind, SentencePieceModel, UNKNOWN};
pub use normalizer::Normalizer;
use offsets::CharCounter;
pub use pipeline::Pipeline;
pub use unigram::Unigram;

/// Id of `<s>`, the token in front of each sentence.
pub const BEGIN: u32 = 1;
/// Id of `</s>`, the token after each sentence.
pub const END: u32 = 2;
/// The number of these marks: tokens of the input of the model that are not of the sentence.
pub const MARKS: u32 = 2;

/// A text of more bytes is tokenized without spans first, which takes a third of the time and a
/// fraction of the memory, so that a text with too many tokens is rejected at that cost.
const LONG_TEXT: usize = 16 * 1024;

/// The tokenizer. It is loaded once, and shared by all threads.
#[derive(Debug)]
pub struct Tokenizer {
    pipeline: Pipeline,
}

/// A text has more tokens than the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooManyTokens;

/// Why a text cannot be tokenized with spans.
#[derive(Debug, thiserror::Error)]
pub enum TokenizeError {
    /// It has more tokens than the limit.
    #[error("too many tokens")]
    TooManyTokens,
    /// A part of the [`Pipeline`] failed.
    #[error("tokenizing failed: {0}")]
    Failed(#[from] tokenizers::Error),
}

/// The end of a text from which tokens are removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truncation {
    /// The last tokens are removed.
    Right,
    /// The first tokens are removed.
    Left,
}

/// A token, and its span of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenSpan {
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
        Ok(Self { pipeline: pipeline::build(SentencePieceModel::parse(bytes)?)? })
    }

    /// The same tokenizer in the interface of the `tokenizers` crate.
    ///
    /// `encode(text, true)` returns the ids of [`Tokenizer::encode`], and `decode` returns the text
    /// of ids as SentencePiece does. The end of a token's offsets is too small where the last
    /// character of the token results from several of the text, such as a letter and its accent,
    /// because the crate aligns a character with one character: [`Tokenizer::tokenize`] corrects
    /// that.
    #[must_use]
    pub fn pipeline(&self) -> &Pipeline {
        &self.pipeline
    }

    /// The ids that are the input of the model: [`BEGIN`], the tokens, [`END`].
    #[must_use]
    pub fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        let _ = self.encode_up_to(usize::MAX, text, &mut ids);
        ids
    }

    /// As [`Tokenizer::encode`], appended to `ids`, at most `most` of them. The text is tokenized
    /// no further than that.
    ///
    /// # Errors
    ///
    /// [`TooManyTokens`] if there are more; then `ids` has the first of them, and [`END`].
    pub fn encode_up_to(&self, most: usize, text: &str, ids: &mut Vec<u32>) -> Result<(), TooManyTokens> {
        let mut left = most.checked_sub(MARKS as usize).ok_or(TooManyTokens)?;
        let mut normalized = Vec::with_capacity(text.len() + text.len() / 4 + 3);
        if let Some(normalizer) = self.pipeline.get_normalizer() {
            normalizer.normalize_into(text, &mut normalized, &mut ());
        }
        ids.push(BEGIN);
        let ended = self.pipeline.get_model().segment(&normalized, |id, _, _| {
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

    /// As [`Tokenizer::encode`], appended to `ids`, without the tokens of the text for which `most`
    /// ids have no room.
    ///
    /// # Errors
    ///
    /// [`TooManyTokens`] if there is no room for [`BEGIN`] and [`END`].
    pub fn encode_truncated(
        &self,
        most: usize,
        truncation: Truncation,
        text: &str,
        ids: &mut Vec<u32>,
    ) -> Result<(), TooManyTokens> {
        if most < MARKS as usize {
            return Err(TooManyTokens);
        }
        match truncation {
            // It has the first of them if there are too many.
            Truncation::Right => {
                let _ = self.encode_up_to(most, text, ids);
            }
            Truncation::Left => {
                let first = ids.len() + 1;
                self.encode_up_to(usize::MAX, text, ids)?;
                let excess = (ids.len() + 1 - first).saturating_sub(most);
                ids.drain(first..first + excess);
            }
        }
        Ok(())
    }

    /// The tokens with their spans of the text, without [`BEGIN`] and [`END`].
    ///
    /// # Errors
    ///
    /// [`TokenizeError::TooManyTokens`] if there are more than `most`.
    pub fn tokenize(
        &self,
        most: usize,
        text: &str,
    ) -> Result<impl ExactSizeIterator<Item = TokenSpan>, TokenizeError> {
        let too_many = |TooManyTokens| TokenizeError::TooManyTokens;
        if text.len() > LONG_TEXT {
            let most = most.saturating_add(MARKS as usize);
            self.encode_up_to(most, text, &mut Vec::new()).map_err(too_many)?;
        }
        let encoding = self.pipeline.encode(text, false)?;
        if encoding.len() > most {
            return Err(too_many(TooManyTokens));
        }
        let normalizer = self.pipeline.get_normalizer();
        let mut chars = CharCounter::new(text);
        Ok((0..encoding.len()).map(move |index| {
            let (start, mut end) = encoding.get_offsets()[index];
            if let Some(normalizer) = normalizer
                && start < end
            {
                end = normalizer.rule_end(text, end);
            }
            TokenSpan { id: encoding.get_ids()[index], bytes: (start, end), chars: chars.range((start, end)) }
        }))
    }

    /// The piece of an id, as in the vocabulary.
    #[must_use]
    pub fn piece(&self, id: u32) -> Option<&str> {
        self.pieces().get(id as usize).map(|piece| piece.text.as_str())
    }

    /// Whether [`Tokenizer::tokenize`] can return an id: it is in the vocabulary, and not a mark
    /// such as [`BEGIN`].
    #[must_use]
    pub fn is_token(&self, id: u32) -> bool {
        id == UNKNOWN || self.pieces().get(id as usize).is_some_and(|piece| piece.kind != PieceKind::Other)
    }

    /// The number of pieces in the vocabulary.
    #[must_use]
    pub fn vocabulary_size(&self) -> usize {
        self.pieces().len()
    }

    fn pieces(&self) -> &[Piece] {
        self.pipeline.get_model().pieces()
    }
}
