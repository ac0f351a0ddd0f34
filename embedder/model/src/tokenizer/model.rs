//! The fields of SentencePiece's `ModelProto` that the tokenizer uses.

use prost::Message;

/// Id of the unknown token.
pub(super) const UNKNOWN: u32 = 0;

/// Why a tokenizer cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not a serialized SentencePiece model.
    #[error("not a SentencePiece model: {0}")]
    Malformed(String),
    /// A SentencePiece model with settings that this tokenizer does not implement.
    #[error("a SentencePiece model of another kind than MUSE's: {0}")]
    Unsupported(String),
}

#[derive(Clone, PartialEq, Message)]
struct SentencePieceProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<PieceProto>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct PieceProto {
    #[prost(string, tag = "1")]
    piece: String,
    #[prost(float, tag = "2")]
    score: f32,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", tag = "2")]
    precompiled_charsmap: Vec<u8>,
    #[prost(bool, optional, tag = "3")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5")]
    escape_whitespaces: Option<bool>,
}

/// The kind of a piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PieceKind {
    Normal,
    UserDefined,
    /// Unknown, control and unused pieces, which do not occur in text.
    Other,
}

/// An entry of the vocabulary.
#[derive(Debug)]
pub(super) struct Piece {
    pub(super) text: String,
    pub(super) score: f32,
    pub(super) kind: PieceKind,
}

/// A unigram model with MUSE's settings.
#[derive(Debug)]
pub(super) struct SentencePieceModel {
    pub(super) pieces: Vec<Piece>,
    /// A double array as `u32 length, units`, then the NUL-terminated replacements that its values
    /// point to.
    pub(super) charsmap: Vec<u8>,
}

impl SentencePieceModel {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, TokenizerError> {
        let proto =
            SentencePieceProto::decode(bytes).map_err(|e| TokenizerError::Malformed(e.to_string()))?;
        let trainer = proto.trainer.unwrap_or_default();
        let normalizer = proto.normalizer.unwrap_or_default();
        let settings = [
            ("the model type is not unigram", trainer.model_type.unwrap_or(1) == 1),
            ("white space is a suffix", !trainer.treat_whitespace_as_suffix.unwrap_or(false)),
            ("byte fallback is on", !trainer.byte_fallback.unwrap_or(false)),
            ("no dummy prefix is added", normalizer.add_dummy_prefix.unwrap_or(true)),
            ("extra white space is kept", normalizer.remove_extra_whitespaces.unwrap_or(true)),
            ("white space is not escaped", normalizer.escape_whitespaces.unwrap_or(true)),
        ];
        if let Some((differs, _)) = settings.iter().find(|(_, as_expected)| !as_expected) {
            return Err(TokenizerError::Unsupported((*differs).to_owned()));
        }
        let pieces: Vec<Piece> = proto
            .pieces
            .into_iter()
            .map(|p| Piece { text: p.piece, score: p.score, kind: kind_of(p.kind) })
            .collect();
        if pieces.get(UNKNOWN as usize).is_none_or(|first| first.kind != PieceKind::Other) {
            return Err(TokenizerError::Unsupported("the first piece is not the unknown one".to_owned()));
        }
        Ok(Self { pieces, charsmap: normalizer.precompiled_charsmap })
    }
}

/// The values of `ModelProto.SentencePiece.Type`.
fn kind_of(value: Option<i32>) -> PieceKind {
    match value.unwrap_or(1) {
        1 => PieceKind::Normal,
        4 => PieceKind::UserDefined,
        _ => PieceKind::Other,
    }
}
