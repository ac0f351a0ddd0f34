//! The normalizer of the `tokenizers` crate's interface.
//!
//! A `NormalizedString` aligns each character of the normalized text with one character of the
//! text. Here that is the first one of those that a rule replaces: the others are removed, and the
//! result is written in the place of the first.

use tokenizers::{NormalizedString, Result, normalizer::Range};

use super::normalizer::{Alignment, META_SPACE, Normalizer};

/// The starts of the replaced parts, in the text and in the normalized text.
#[derive(Debug, Default)]
struct Steps(Vec<Step>);

#[derive(Debug, Clone, Copy)]
struct Step {
    /// Byte of the normalized text.
    at: usize,
    /// Byte of the text.
    start: usize,
}

impl Alignment for Steps {
    fn push(&mut self, at: usize, start: usize) {
        self.0.push(Step { at, start });
    }

    fn truncate(&mut self, length: usize) {
        while self.0.last().is_some_and(|step| step.at >= length) {
            self.0.pop();
        }
    }
}

impl tokenizers::Normalizer for Normalizer {
    fn normalize(&self, string: &mut NormalizedString) -> Result<()> {
        let (mut output, mut steps) = (Vec::with_capacity(string.len() + META_SPACE.len()), Steps::default());
        self.normalize_into(string.get(), &mut output, &mut steps);
        let output = String::from_utf8(output)?;
        let Some((prefix, steps)) = steps.0.split_first() else {
            string.transform_range(Range::Normalized(..), [], 0);
            return Ok(());
        };
        if prefix.start > 0 {
            // An inserted first character has the position 0 of its string.
            *string =
                string.slice(Range::Normalized(prefix.start..)).ok_or("a step is inside a character")?;
        }
        remove_except_starts(string, prefix.start, steps);
        let mut starts = steps.iter().map(|step| step.at).peekable();
        // 0: replaces the next character. 1: is inserted after the previous one.
        let mut change = |at| isize::from(starts.next_if_eq(&at).is_none());
        let output = output.char_indices().map(|(at, character)| (character, change(at)));
        string.transform_range(Range::Normalized(..), output, 0);
        Ok(())
    }
}

/// Removes the characters of `string` at which no step starts. Its first byte has the position
/// `offset` in the text of the steps.
fn remove_except_starts(string: &mut NormalizedString, offset: usize, steps: &[Step]) {
    let text = string.get();
    if text.chars().count() == steps.len() {
        return;
    }
    let starts = steps.iter().map(|step| step.start - offset).chain([text.len()]);
    let mut from = 0;
    // The characters in front of the first step, then those of each step.
    let mut counts = starts.map(|start| text[std::mem::replace(&mut from, start)..start].chars().count());
    let leading = counts.next().unwrap_or_default();
    let changes: Vec<isize> = counts.map(|count| 1 - count as isize).collect();
    // The characters that remain are replaced afterwards, so that any will do.
    string.transform_range(Range::Normalized(..), changes.into_iter().map(|change| (' ', change)), leading);
}
