//! Tokenized sentences, the input of the model.

use std::ops::Range;

/// Token ids of sentences, concatenated without padding.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TokenizedSentences {
    ids: Vec<u32>,
    /// Where each sentence ends in `ids`.
    ends: Vec<usize>,
}

impl TokenizedSentences {
    /// Adds a sentence: the ids that `write` appends.
    pub fn push(&mut self, write: impl FnOnce(&mut Vec<u32>)) {
        write(&mut self.ids);
        self.ends.push(self.ids.len());
    }

    /// As [`TokenizedSentences::push`], for a `write` that can fail: then the ids are removed.
    pub fn try_push<E>(&mut self, write: impl FnOnce(&mut Vec<u32>) -> Result<(), E>) -> Result<(), E> {
        let before = self.ids.len();
        let outcome = write(&mut self.ids);
        match outcome {
            Ok(()) => self.ends.push(self.ids.len()),
            Err(_) => self.ids.truncate(before),
        }
        outcome
    }

    /// The number of sentences.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no sentence.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The tokens of all sentences.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// The tokens of each sentence.
    pub fn lengths(&self) -> impl Iterator<Item = usize> + '_ {
        let starts = [0].into_iter().chain(self.ends.iter().copied());
        self.ends.iter().zip(starts).map(|(end, start)| end - start)
    }

    /// The tokens of one sentence.
    #[must_use]
    pub fn length(&self, index: usize) -> usize {
        self.ends[index] - self.start(index)
    }

    /// The ids of some sentences, concatenated.
    #[must_use]
    pub fn ids(&self, range: Range<usize>) -> &[u32] {
        &self.ids[self.start(range.start)..self.start(range.end)]
    }

    fn start(&self, index: usize) -> usize {
        index.checked_sub(1).map_or(0, |before| self.ends[before])
    }
}

impl<'a> FromIterator<&'a [u32]> for TokenizedSentences {
    fn from_iter<I: IntoIterator<Item = &'a [u32]>>(sentences: I) -> Self {
        let mut all = Self::default();
        for sentence in sentences {
            all.push(|ids| ids.extend_from_slice(sentence));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_are_found_by_index() {
        let sentences: TokenizedSentences = [&[1, 2][..], &[3], &[], &[4, 5, 6]].into_iter().collect();
        assert_eq!((sentences.len(), sentences.tokens(), sentences.is_empty()), (4, 6, false));
        assert_eq!(sentences.lengths().collect::<Vec<_>>(), [2, 1, 0, 3]);
        assert_eq!((0..4).map(|index| sentences.length(index)).collect::<Vec<_>>(), [2, 1, 0, 3]);
        assert_eq!((sentences.ids(0..1), sentences.ids(1..4)), (&[1, 2][..], &[3, 4, 5, 6][..]));
        assert_eq!(sentences.ids(4..4), [0_u32; 0]);
    }
}
