//! The normalizer: applies the character map of the model, puts one `▁` in front, writes runs of
//! spaces as one `▁`, and removes those at the end.

use super::{
    double_array::DoubleArray,
    model::{PieceKind, SentencePieceModel, TokenizerError},
};

/// U+2581, which replaces a space in pieces.
const META_SPACE: &[u8] = "▁".as_bytes();

/// The normalization rules of the model.
#[derive(Debug)]
pub(super) struct Normalizer {
    /// Sequences that are replaced; a value is a position in `replacements`.
    rules: DoubleArray,
    /// NUL-terminated.
    replacements: Vec<u8>,
    /// Pieces that are not changed.
    user_defined: Vec<Vec<u8>>,
    /// `literal[a]` has bit b set if no rule changes the ASCII character a in front of the ASCII
    /// character b.
    literal: Box<[u128; 128]>,
}

/// Records the source bytes of each byte of the normalized text.
pub(super) trait Alignment {
    /// The next `count` normalized bytes come from `start..end` of the source.
    fn push(&mut self, count: usize, start: usize, end: usize);
    /// The normalized text was truncated to `length` bytes.
    fn truncate(&mut self, length: usize);
}

impl Alignment for () {
    #[inline]
    fn push(&mut self, _: usize, _: usize, _: usize) {}
    #[inline]
    fn truncate(&mut self, _: usize) {}
}

/// The source bytes of each normalized byte. A text is shorter than 4 GiB.
#[derive(Debug, Default)]
pub(super) struct SourceSpans {
    /// Runs of normalized bytes, in order.
    runs: Vec<Run>,
    length: usize,
}

/// Normalized bytes with the same source, or each with the source byte after that of the previous
/// one.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// Its start in the normalized text.
    at: u32,
    /// Its source: of all bytes, or of the first one if it is literal.
    start: u32,
    end: u32,
    literal: bool,
}

impl Alignment for SourceSpans {
    #[inline]
    fn push(&mut self, count: usize, start: usize, end: usize) {
        let at = self.length as u32;
        let (start, end) = (start as u32, end as u32);
        self.length += count;
        let literal = count == 1 && end == start + 1;
        let continues = self.runs.last().is_some_and(|last| {
            if literal && last.literal {
                last.start + (at - last.at) == start
            } else {
                !literal && !last.literal && (last.start, last.end) == (start, end)
            }
        });
        if !continues {
            self.runs.push(Run { at, start, end, literal });
        }
    }

    fn truncate(&mut self, length: usize) {
        self.length = length;
        while self.runs.last().is_some_and(|last| last.at as usize >= length) {
            self.runs.pop();
        }
    }
}

impl SourceSpans {
    /// The source bytes from which the (non-empty) normalized range was made.
    pub(super) fn covering(&self, start: usize, end: usize) -> (usize, usize) {
        (self.source(start).0, self.source(end - 1).1)
    }

    fn source(&self, position: usize) -> (usize, usize) {
        let run = self.runs[self.runs.partition_point(|run| run.at as usize <= position) - 1];
        let offset = if run.literal { position - run.at as usize } else { 0 };
        (run.start as usize + offset, run.end as usize + offset)
    }
}

/// The result of the rules at one position of the text.
struct Step<'a> {
    output: &'a [u8],
    consumed: usize,
}

impl Normalizer {
    pub(super) fn new(model: &SentencePieceModel) -> Result<Self, TokenizerError> {
        let malformed = || TokenizerError::Malformed("its character map is cut short".to_owned());
        let (length, rest) = model.charsmap.split_first_chunk::<4>().ok_or_else(malformed)?;
        let (units, replacements) =
            rest.split_at_checked(u32::from_le_bytes(*length) as usize).ok_or_else(malformed)?;
        let rules = DoubleArray::from_bytes(units);
        let user_defined = model
            .pieces
            .iter()
            .filter(|piece| piece.kind == PieceKind::UserDefined)
            .map(|piece| piece.text.clone().into_bytes())
            .collect();
        let literal = literal_pairs(&rules);
        Ok(Self { rules, replacements: replacements.to_vec(), user_defined, literal })
    }

    /// Appends the normalized form of `text` to `out`.
    pub(super) fn normalize(&self, text: &str, out: &mut Vec<u8>, alignment: &mut impl Alignment) {
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
        out.extend_from_slice(META_SPACE);
        alignment.push(META_SPACE.len(), position, position);

        let mut after_space = true;
        while position < text.len() {
            let step = self.step(text, position);
            let end = position + step.consumed;
            let mut output = step.output;
            if after_space {
                output = without_leading_spaces(output);
            }
            if let Some(&last) = output.last() {
                for &byte in output {
                    if byte == b' ' {
                        out.extend_from_slice(META_SPACE);
                        alignment.push(META_SPACE.len(), position, end);
                    } else {
                        out.push(byte);
                        alignment.push(1, position, end);
                    }
                }
                after_space = last == b' ';
            }
            position = end;
        }

        while out.ends_with(META_SPACE) {
            out.truncate(out.len() - META_SPACE.len());
            alignment.truncate(out.len());
        }
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
            Some((consumed, value)) => Step { output: self.replacement(value as usize), consumed },
            None => {
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
        let from_start = self.replacements.get(start..).unwrap_or_default();
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
