//! Ragged batches: the input of one forward pass, sentences of several requests without padding.
//!
//! For libtorch's kernels, which are created for each shape, one dummy sentence rounds up the total
//! number of tokens, so that there are few shapes.

use std::ops::Range;

use crate::{
    sentences::TokenizedSentences,
    tokenizer::{BEGIN, END},
};

/// A ragged batch: token ids, and the lengths of the sentences.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// All ids, one sentence after the other.
    pub ids: Vec<i64>,
    /// Tokens of each sentence.
    pub lengths: Vec<i64>,
}

impl Batch {
    /// A batch of one sentence of `tokens` tokens, to warm the kernels.
    #[must_use]
    pub fn dummy(tokens: usize) -> Self {
        let mut ids = vec![i64::from(BEGIN); tokens.saturating_sub(1)];
        ids.push(i64::from(END));
        Self { lengths: vec![ids.len() as i64], ids }
    }

    /// Appends some of the sentences of a request.
    pub fn append(&mut self, sentences: &TokenizedSentences, range: Range<usize>) {
        self.lengths.extend(range.clone().map(|index| sentences.length(index) as i64));
        self.ids.extend(sentences.ids(range).iter().map(|&id| i64::from(id)));
    }

    /// Rounds the number of tokens up to a [`bucket`], with one dummy sentence at the end.
    pub fn round_up_shape(&mut self) {
        let tokens = self.ids.len();
        let padding = bucket(tokens) - tokens;
        if padding > 0 {
            self.ids.resize(tokens + padding, i64::from(END));
            self.lengths.push(padding as i64);
        }
    }
}

/// The number of tokens that a batch of `tokens` is rounded up to, in steps of at most 64; the
/// steps are smaller for small batches, where padding costs more.
#[must_use]
pub fn bucket(tokens: usize) -> usize {
    let step = if tokens <= 64 {
        8
    } else if tokens <= 256 {
        32
    } else {
        64
    };
    tokens.next_multiple_of(step)
}

/// All buckets up to that of `most` tokens.
pub fn buckets(most: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(bucket(1)), |&tokens| Some(bucket(tokens + 1)))
        .take_while(move |&tokens| tokens <= bucket(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_few_and_close() {
        let all: Vec<usize> = buckets(1024).collect();
        assert!((1..=1024).all(|tokens| (tokens..tokens + 64).contains(&bucket(tokens))));
        assert!((1..=1024).all(|tokens| all.contains(&bucket(tokens))));
        assert_eq!((all.len(), all.last()), (8 + 6 + 12, Some(&1024)));
    }

    #[test]
    fn batch_is_rounded_up_with_one_sentence() {
        let sentences: TokenizedSentences = [&[1, 7, 2][..], &[1, 2], &[1, 8, 9, 2]].into_iter().collect();
        let mut batch = Batch::default();
        batch.append(&sentences, 1..3);
        batch.append(&sentences, 0..1);
        assert_eq!((&batch.ids[..], &batch.lengths[..]), (&[1, 2, 1, 8, 9, 2, 1, 7, 2][..], &[2, 4, 3][..]));
        batch.round_up_shape();
        assert_eq!((batch.ids.len(), &batch.lengths[..]), (16, &[2, 4, 3, 7][..]));
        let padded = batch.clone();
        batch.round_up_shape();
        assert_eq!(batch, padded);
    }
}
