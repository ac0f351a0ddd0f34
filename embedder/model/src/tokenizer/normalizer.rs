//! The normalizer: applies the character map of the model, puts one `▁` in front, writes runs of
//! spaces as one `▁`, and removes those at the end.

use super::{
    double_array::DoubleArray,
    model::{PieceKind, SentencePieceModel, TokenizerError},
};

/// U+2581, which replaces a space in pieces.
pub(super) const META_SPACE: &[u8] = "▁".as_bytes();

/// The normalization rules of the model.
#[derive(Debug)]
pub struct Normalizer {
    /// Sequences that are replaced; a value is a position in `replacements`.
    rules: DoubleArray,
    /// NUL-terminated.
    replacements: String,
    /// Pieces that are not changed.
    user_defined: Vec<Vec<u8>>,
    /// `literal[a]` has bit b set if no rule changes the ASCII character a in front of the ASCII
    /// character b.
    literal: Box<[u128; 128]>,
}

/// Records which part of the text became which part of the normalized text.
pub(super) trait Alignment {
    /// The normalized text from byte `at` on comes from the text at byte `start`.
    fn push(&mut self, at: usize, start: usize);
    /// The normalized text was truncated to `length` bytes.
    fn truncate(&mut self, length: usize);
}

/// Records nothing.
impl Alignment for () {
    #[inline]
    fn push(&mut self, _: usize, _: usize) {}
    #[inline]
    fn truncate(&mut self, _: usize) {}
}

/// The result of the rules at one position of the text.
struct Step<'a> {
    output: &'a [u8],
    consumed: usize,
}

impl Normalizer {
    pub(super) fn new(model: &SentencePieceModel) -> Result<Self, TokenizerError> {
        let malformed = |what| TokenizerError::Malformed(format!("its character map is {what}"));
        let cut_short = || malformed("cut short");
        let (length, rest) = model.charsmap.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let (units, replacements) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(cut_short)?;
        let replacements = String::from_utf8(replacements.to_vec()).map_err(|_| malformed("not UTF-8"))?;
        let rules = DoubleArray::from_bytes(units);
        let user_defined = model
            .pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::UserDefined)
            .map(|piece| piece.text.clone().into_bytes())
            .collect();
        let literal = literal_pairs(&rules);
        Ok(Self { rules, replacements, user_defined, literal })
    }

    /// Writes the normalized form of `text` to `out`, which is empty.
    pub(super) fn normalize_into(&self, text: &str, out: &mut Vec<u8>, alignment: &mut impl Alignment) {
        let mut position = 0;
        while position < text.len() {
            let step = self.step(text, position);
            if step.output != b" " {
                break;
            }
            position += step.consumed;
        }
        if position == text.len() {
            return;
        }
        alignment.push(out.len(), position);
        out.extend_from_slice(META_SPACE);

        let mut after_space = true;
        while position < text.len() {
            let step = self.step(text, position);
            let mut output = step.output;
            if after_space {
                output = without_leading_spaces(output);
            }
            if let Some(&last) = output.last() {
                alignment.push(out.len(), position);
                for &byte in output {
                    if byte == b' ' {
                        out.extend_from_slice(META_SPACE);
                    } else {
                        out.push(byte);
                    }
                }
                after_space = last == b' ';
            }
            position += step.consumed;
        }

        while out.ends_with(META_SPACE) {
            out.truncate(out.len() - META_SPACE.len());
            alignment.truncate(out.len());
        }
    }

    /// The end of the characters that one rule replaces, of which the first ends at byte `end` of
    /// `text`.
    pub(super) fn rule_end(&self, text: &str, end: usize) -> usize {
        let start = text.get(..end).and_then(|before| before.char_indices().next_back());
        start.map_or(end, |(start, _)| start + self.step(text, start).consumed)
    }

    #[inline]
    fn step<'a>(&'a self, text: &'a str, position: usize) -> Step<'a> {
        let rest = &text.as_bytes()[position..];
        let first = rest[0];
        if first < 0x80 && !self.starts_user_defined(first) {
            let next = rest.get(1).copied().unwrap_or(b' ');
            if next < 0x80 && self.literal[usize::from(first)] >> next & 1 == 1 {
                return Step { output: &rest[..1], consumed: 1 };
            }
        }
        if let Some(piece) = self.user_defined_prefix(rest) {
            return Step { output: piece, consumed: piece.len() };
        }
        let mut longest = None;
        self.rules.prefixes(rest, |length, value| longest = Some((length, value)));
        match longest {
            // A malformed model may have keys that end inside a character.
            Some((consumed, value)) if text.is_char_boundary(position + consumed) => {
                Step { output: self.replacement(value as usize), consumed }
            }
            _ => {
                let consumed = text[position..].chars().next().map_or(1, char::len_utf8);
                Step { output: &rest[..consumed], consumed }
            }
        }
    }

    #[inline]
    fn starts_user_defined(&self, byte: u8) -> bool {
        self.user_defined.iter().any(|piece| piece.first() == Some(&byte))
    }

    fn user_defined_prefix<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        let length = self.user_defined.iter().filter(|piece| text.starts_with(piece)).map(Vec::len).max()?;
        Some(&text[..length])
    }

    fn replacement(&self, start: usize) -> &[u8] {
        let from_start = self.replacements.get(start..).unwrap_or_default().as_bytes();
        let length = from_start.iter().position(|&byte| byte == 0).unwrap_or(from_start.len());
        &from_start[..length]
    }
}

/// The pairs that need no search in the trie: a is not a key, and no key starts with a, b.
fn literal_pairs(rules: &DoubleArray) -> Box<[u128; 128]> {
    let mut pairs = Box::new([0u128; 128]);
    for a in 0..128u8 {
        let mut is_key = false;
        rules.prefixes(&[a], |_, _| is_key = true);
        for b in 0..128u8 {
            if !is_key && !rules.has_prefix(&[a, b]) {
                pairs[usize::from(a)] |= 1 << b;
            }
        }
    }
    pairs
}

/// Removes leading U+0020, but no other white space.
fn without_leading_spaces(bytes: &[u8]) -> &[u8] {
    &bytes[bytes.iter().take_while(|&&byte| byte == b' ').count()..]
}
