//! The best segmentation under a unigram language model (Viterbi), with SentencePiece's own rounding and tie-breaking.

use std::{cell::RefCell, ops::ControlFlow};

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
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers { lattice: Vec::new(), path: Vec::new() }) };
}

struct Buffers {
    lattice: Vec<Best>,
    path: Vec<(u32, usize, usize)>,
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

    /// Calls `token(id, start, end)` for each token of the best segmentation, in order, until it breaks; positions are
    /// bytes of `normalized`, which must be UTF-8. Neighbouring unknown characters are one token.
    ///
    /// The lattice is cut wherever no piece crosses a position, which every path goes through: at each space, say. So the
    /// memory is that of the longest part between two cuts, and who breaks early spares the rest of the text.
    pub(super) fn segment(
        &self,
        normalized: &[u8],
        token: impl FnMut(u32, usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        BUFFERS.with_borrow_mut(|Buffers { lattice, path }| {
            let outcome = self.segment_with(normalized, lattice, path, token);
            path.shrink_to(KEPT);
            lattice.shrink_to(KEPT);
            outcome
        })
    }

    fn segment_with(
        &self,
        text: &[u8],
        lattice: &mut Vec<Best>,
        path: &mut Vec<(u32, usize, usize)>,
        token: impl FnMut(u32, usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut tokens = Tokens { unknown: None, token };
        // The position that the lattice begins at.
        let mut base = 0;
        lattice.clear();
        lattice.push(Best { score: 0.0, start: UNREACHED, id: UNKNOWN });
        let mut start = 0;
        while start < text.len() {
            let node = start - base;
            let before = lattice[node].score;
            let char_length = utf8_length(text[start]).min(text.len() - start);
            let mut covers_char = false;
            self.pieces.prefixes(&text[start..], |length, id| {
                // f64 for the sum and the comparison, f32 for what is kept: this decides near ties.
                let candidate = self.scores[id as usize] + f64::from(before);
                let best = reach(lattice, node + length);
                if best.start == UNREACHED || candidate > f64::from(best.score) {
                    *best = Best { score: candidate as f32, start: node as u32, id };
                }
                covers_char |= length == char_length;
            });
            if !covers_char {
                let candidate = self.unknown_score + before;
                let best = reach(lattice, node + char_length);
                if best.start == UNREACHED || candidate > best.score {
                    *best = Best { score: candidate, start: node as u32, id: UNKNOWN };
                }
            }
            start += char_length;
            if lattice.len() == start - base + 1 {
                walk_back(lattice, base, path);
                for &(id, start, end) in path.iter().rev() {
                    tokens.push(id, start, end)?;
                }
                let score = lattice.last().map_or(0.0, |last| last.score);
                lattice.clear();
                lattice.push(Best { score, start: UNREACHED, id: UNKNOWN });
                base = start;
            }
        }
        tokens.flush()
    }
}

/// Entries of the buffers that are kept between texts: one very long text must not hold its memory for good.
const KEPT: usize = 16 * 1024;

#[inline]
fn reach(lattice: &mut Vec<Best>, node: usize) -> &mut Best {
    if node >= lattice.len() {
        lattice.resize(node + 1, Best { score: 0.0, start: UNREACHED, id: UNKNOWN });
    }
    &mut lattice[node]
}

fn walk_back(lattice: &[Best], base: usize, path: &mut Vec<(u32, usize, usize)>) {
    path.clear();
    let mut end = lattice.len() - 1;
    while end > 0 {
        let best = lattice[end];
        path.push((best.id, base + best.start as usize, base + end));
        end = best.start as usize;
    }
}

/// Joins neighbouring unknown characters.
struct Tokens<F> {
    unknown: Option<(usize, usize)>,
    token: F,
}

impl<F: FnMut(u32, usize, usize) -> ControlFlow<()>> Tokens<F> {
    #[inline]
    fn push(&mut self, id: u32, start: usize, end: usize) -> ControlFlow<()> {
        if id == UNKNOWN {
            self.unknown = Some((self.unknown.map_or(start, |(first, _)| first), end));
            return ControlFlow::Continue(());
        }
        self.flush()?;
        (self.token)(id, start, end)
    }

    #[inline]
    fn flush(&mut self) -> ControlFlow<()> {
        match self.unknown.take() {
            Some((start, end)) => (self.token)(UNKNOWN, start, end),
            None => ControlFlow::Continue(()),
        }
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
