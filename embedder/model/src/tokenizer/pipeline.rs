//! The tokenizer as a `TokenizerImpl` of the `tokenizers` crate.

use tokenizers::{PreTokenizerWrapper, TokenizerBuilder, TokenizerImpl};

use super::{
    BEGIN, Decoder, END, Marks, Normalizer, Unigram,
    model::{SentencePieceModel, TokenizerError},
};

/// The parts of the tokenizer, combined by Hugging Face's `tokenizers` crate.
///
/// It has no pre-tokenizer, because SentencePiece segments whole texts, and no added tokens, because
/// they would match special tokens in a text, which are literal to SentencePiece.
pub type Pipeline = TokenizerImpl<Unigram, Normalizer, PreTokenizerWrapper, Marks, Decoder>;

/// Combines the parts of a model.
///
/// # Errors
///
/// If the model is malformed.
pub(super) fn build(model: SentencePieceModel) -> Result<Pipeline, TokenizerError> {
    let normalizer = Normalizer::new(&model)?;
    let piece = |id: u32| model.pieces.get(id as usize).map_or("", |piece| piece.text.as_str());
    let marks = Marks::new(piece(BEGIN), piece(END));
    let decoder = Decoder::new(&model.pieces);
    TokenizerBuilder::new()
        .with_model(Unigram::new(model.pieces)?)
        .with_normalizer(Some(normalizer))
        .with_post_processor(Some(marks))
        .with_decoder(Some(decoder))
        .build()
        .map_err(|error| TokenizerError::Malformed(error.to_string()))
}
