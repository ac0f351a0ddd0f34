//! The best segmentation under a unigram language model (Viterbi), with SentencePiece's own rounding and tie-breaking.

use std::cell::RefCell;

use yada::builder::DoubleArrayBuilder;

use super::{
    UNKNOWN,
    double_array::DoubleArray,
    model::{PieceKind, SentencePieceModel, TokenizerError},
};

/// How much worse than the worst piece an unknown character scores.
const UNKNOWN_PENALTY: f32 = 10.0;

/// Pieces, findable by prefix, and their scores.
#[derive(Debug)]
pub(super) struct Unigram {
    pieces: DoubleArray,
    /// By id. In f64 since that is what SentencePiece adds in; f32 values but for user-defined pieces.
    scores: Vec<f64>,
    unknown_score: f32,
}

/// The best path that ends at a byte.
#[derive(Debug, Clone, Copy)]
struct Best {
    score: f32,
    start: u32,
    id: u32,
}

const UNREACHED: u32 = u32::MAX;

thread_local! {
    /// Reused, since texts are short and many.
    static LATTICE: RefCell<Vec<Best>> = const { RefCell::new(Vec::new()) };
    static PATH: RefCell<Vec<(u32, u32, u32)>> = const { RefCell::new(Vec::new()) };
}

impl Unigram {
    pub(super) fn new(model: &SentencePieceModel) -> Result<Self, TokenizerError> {
        let mut keys: Vec<(&[u8], u32)> = Vec::with_capacity(model.pieces.len());
        let mut scores = Vec::with_capacity(model.pieces.len());
        let mut lowest = f32::MAX;
        for (id, piece) in (0u32..).zip(&model.pieces) {
            scores.push(match piece.kind {
                // SentencePiece: length times the largest score, less 0.1. For a model of negative scores it takes
                // the smallest positive f32 for the largest score, so what is left is -0.1.
                PieceKind::UserDefined => -0.1,
                _ => f64::from(piece.score),
            });
            if piece.kind != PieceKind::Other {
                keys.push((piece.text.as_bytes(), id));
            }
            if piece.kind == PieceKind::Normal {
                lowest = lowest.min(piece.score);
            }
        }
        keys.sort_unstable();
        let bytes = DoubleArrayBuilder::build(&keys)
            .map_err(|e| TokenizerError::Malformed(format!("its pieces make no trie: {e}")))?;
        Ok(Self { pieces: DoubleArray::from_bytes(&bytes), scores, unknown_score: lowest - UNKNOWN_PENALTY })
    }

    /// Calls `token(id, start, end)` for each token of the best segmentation, in order; positions are bytes of
    /// `normalized`, which must be UTF-8. Neighbouring unknown characters are one token.
    pub(super) fn segment(&self, normalized: &[u8], token: impl FnMut(u32, usize, usize)) {
        LATTICE.with_borrow_mut(|lattice| {
            self.fill(normalized, lattice);
            PATH.with_borrow_mut(|path| {
                walk_back(lattice, path);
                emit(path, token);
                path.shrink_to(KEPT);
            });
            lattice.shrink_to(KEPT);
        });
    }

    fn fill(&self, text: &[u8], lattice: &mut Vec<Best>) {
        lattice.clear();
        lattice.resize(text.len() + 1, Best { score: 0.0, start: UNREACHED, id: UNKNOWN });
        let mut start = 0;
        while start < text.len() {
            let before = lattice[start].score;
            let char_length = utf8_length(text[start]).min(text.len() - start);
            let mut covers_char = false;
            self.pieces.prefixes(&text[start..], |length, id| {
                // f64 for the sum and the comparison, f32 for what is kept: this decides near ties.
                let candidate = self.scores[id as usize] + f64::from(before);
                let best = &mut lattice[start + length];
                if best.start == UNREACHED || candidate > f64::from(best.score) {
                    *best = Best { score: candidate as f32, start: start as u32, id };
                }
                covers_char |= length == char_length;
            });
            if !covers_char {
                let candidate = self.unknown_score + before;
                let best = &mut lattice[start + char_length];
                if best.start == UNREACHED || candidate > best.score {
                    *best = Best { score: candidate, start: start as u32, id: UNKNOWN };
                }
            }
            start += char_length;
        }
    }
}

/// Entries of the buffers that are kept between texts: one very long text must not hold its memory for good.
const KEPT: usize = 16 * 1024;

fn walk_back(lattice: &[Best], path: &mut Vec<(u32, u32, u32)>) {
    path.clear();
    let mut end = lattice.len() - 1;
    while end > 0 {
        let best = lattice[end];
        path.push((best.id, best.start, end as u32));
        end = best.start as usize;
    }
}

fn emit(path: &[(u32, u32, u32)], mut token: impl FnMut(u32, usize, usize)) {
    let mut pieces = path.iter().rev().peekable();
    while let Some(&(id, start, mut end)) = pieces.next() {
        if id == UNKNOWN {
            while let Some(&&(_, _, next_end)) = pieces.peek().filter(|(next, _, _)| *next == UNKNOWN) {
                end = next_end;
                pieces.next();
            }
        }
        token(id, start as usize, end as usize);
    }
}

fn utf8_length(first: u8) -> usize {
    match first {
        0x00..=0x7f => 1,
        0x80..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xff => 4,
    }
}
