//! The decoder of the `tokenizers` crate's interface.

use tokenizers::Result;

use super::model::{Piece, PieceKind, UNKNOWN};

/// What SentencePiece writes for an unknown token.
const UNKNOWN_TEXT: &str = " ⁇ ";
const META_SPACE: char = '▁';

/// Joins pieces as SentencePiece's `Decode` does: `▁` becomes a space except at the start of the
/// text, the unknown token becomes ` ⁇ `, and `<s>` and `</s>` become nothing.
#[derive(Debug, Clone)]
pub struct Decoder {
    unknown: String,
    /// Pieces without text.
    silent: Vec<String>,
}

impl Decoder {
    /// A decoder of the pieces of a vocabulary.
    pub(super) fn new(pieces: &[Piece]) -> Self {
        let silent = |(piece, id): &(&Piece, u32)| piece.kind == PieceKind::Other && *id != UNKNOWN;
        Self {
            unknown: pieces.get(UNKNOWN as usize).map(|piece| piece.text.clone()).unwrap_or_default(),
            silent: pieces.iter().zip(0..).filter(silent).map(|(piece, _)| piece.text.clone()).collect(),
        }
    }
}

impl tokenizers::Decoder for Decoder {
    fn decode_chain(&self, tokens: Vec<String>) -> Result<Vec<String>> {
        let mut starts_text = true;
        let texts = tokens.into_iter().map(|token| {
            let text = if token == self.unknown {
                UNKNOWN_TEXT.to_owned()
            } else if self.silent.contains(&token) {
                String::new()
            } else {
                let prefix = if starts_text { META_SPACE.len_utf8() } else { 0 };
                let piece = token.get(prefix..).filter(|_| token.starts_with(META_SPACE)).unwrap_or(&token);
                piece.replace(META_SPACE, " ")
            };
            starts_text &= text.is_empty();
            text
        });
        Ok(texts.collect())
    }
}
