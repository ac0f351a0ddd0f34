//! The best segmentation under a unigram language model (Viterbi algorithm), with the rounding and
//! tie-breaking of SentencePiece.

use std::{cell::RefCell, ops::ControlFlow};

use yada::builder::DoubleArrayBuilder;

use super::{
    UNKNOWN,
    double_array::DoubleArray,
    model::{Piece, PieceKind, TokenizerError},
};

/// The score of an unknown character is that of the worst piece minus this.
const UNKNOWN_PENALTY: f32 = 10.0;

/// The unigram language model: the vocabulary, a trie of the pieces in texts, and their scores.
#[derive(Debug)]
pub struct Unigram {
    pieces: Vec<Piece>,
    trie: DoubleArray,
    /// By id. SentencePiece adds in f64; the values are f32, except for user-defined pieces.
    scores: Vec<f64>,
    unknown_score: f32,
}

/// The best path that ends at a byte.
#[derive(Debug, Clone, Copy)]
struct BestPath {
    score: f32,
    start: u32,
    id: u32,
}

const UNREACHED: u32 = u32::MAX;

thread_local! {
    /// Reused, since there are many short texts.
    static BUFFERS: RefCell<Buffers> = const { RefCell::new(Buffers { lattice: Vec::new(), path: Vec::new() }) };
}

struct Buffers {
    lattice: Vec<BestPath>,
    path: Vec<(u32, usize, usize)>,
}

impl Unigram {
    pub(super) fn new(pieces: Vec<Piece>) -> Result<Self, TokenizerError> {
        let mut keys: Vec<(&[u8], u32)> = Vec::with_capacity(pieces.len());
        let mut scores = Vec::with_capacity(pieces.len());
        let mut lowest = f32::MAX;
        for (id, piece) in (0u32..).zip(&pieces) {
            scores.push(match piece.kind {
                // SentencePiece: length times the largest score, minus 0.1. For a model of negative
                // scores its largest score is the smallest positive f32, so that the result is
                // -0.1.
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
        let trie = DoubleArray::from_bytes(&bytes);
        Ok(Self { pieces, trie, scores, unknown_score: lowest - UNKNOWN_PENALTY })
    }

    /// The vocabulary, by id.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The id of a piece, also of one that does not occur in texts.
    pub(super) fn id(&self, piece: &str) -> Option<u32> {
        let mut id = None;
        self.trie.prefixes(piece.as_bytes(), |length, found| {
            if length == piece.len() {
                id = Some(found);
            }
        });
        id.or_else(|| {
            let others = self.pieces.iter().zip(0..).filter(|(other, _)| other.kind == PieceKind::Other);
            others.into_iter().find(|(other, _)| other.text == piece).map(|(_, id)| id)
        })
    }

    /// Calls `token(id, start, end)` for each token of the best segmentation, in order, until that
    /// breaks. Positions are bytes of `normalized`, which must be UTF-8. Adjacent unknown
    /// characters are one token.
    ///
    /// The lattice is cut at each position that every path includes since no piece crosses it, such
    /// as at spaces. So its memory is that of the longest section between two cuts, and a break
    /// saves the work for the later sections.
    pub(super) fn segment(
        &self,
        normalized: &[u8],
        token: impl FnMut(u32, usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        BUFFERS.with_borrow_mut(|Buffers { lattice, path }| {
            let outcome = self.segment_with(normalized, lattice, path, token);
            path.shrink_to(RETAINED);
            lattice.shrink_to(RETAINED);
            outcome
        })
    }

    fn segment_with(
        &self,
        text: &[u8],
        lattice: &mut Vec<BestPath>,
        path: &mut Vec<(u32, usize, usize)>,
        token: impl FnMut(u32, usize, usize) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut tokens = UnknownMerger { unknown: None, token };
        // The start of the lattice in the text.
        let mut base = 0;
        lattice.clear();
        lattice.push(BestPath { score: 0.0, start: UNREACHED, id: UNKNOWN });
        let mut start = 0;
        while start < text.len() {
            let node = start - base;
            let before = lattice[node].score;
            let char_length = utf8_length(text[start]).min(text.len() - start);
            let mut covers_char = false;
            self.trie.prefixes(&text[start..], |length, id| {
                // The sum and the comparison in f64, the stored score in f32: this decides near
                // ties.
                let candidate = self.scores[id as usize] + f64::from(before);
                let best = reach(lattice, node + length);
                if best.start == UNREACHED || candidate > f64::from(best.score) {
                    *best = BestPath { score: candidate as f32, start: node as u32, id };
                }
                covers_char |= length == char_length;
            });
            if !covers_char {
                let candidate = self.unknown_score + before;
                let best = reach(lattice, node + char_length);
                if best.start == UNREACHED || candidate > best.score {
                    *best = BestPath { score: candidate, start: node as u32, id: UNKNOWN };
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
                lattice.push(BestPath { score, start: UNREACHED, id: UNKNOWN });
                base = start;
            }
        }
        tokens.flush()
    }
}

/// Entries of the buffers that are retained between texts: the memory of a very long text is
/// released.
const RETAINED: usize = 16 * 1024;

#[inline]
fn reach(lattice: &mut Vec<BestPath>, node: usize) -> &mut BestPath {
    if node >= lattice.len() {
        lattice.resize(node + 1, BestPath { score: 0.0, start: UNREACHED, id: UNKNOWN });
    }
    &mut lattice[node]
}

fn walk_back(lattice: &[BestPath], base: usize, path: &mut Vec<(u32, usize, usize)>) {
    path.clear();
    let mut end = lattice.len() - 1;
    while end > 0 {
        let best = lattice[end];
        path.push((best.id, base + best.start as usize, base + end));
        end = best.start as usize;
    }
}

/// Merges adjacent unknown characters into one token.
struct UnknownMerger<F> {
    unknown: Option<(usize, usize)>,
    token: F,
}

impl<F: FnMut(u32, usize, usize) -> ControlFlow<()>> UnknownMerger<F> {
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
