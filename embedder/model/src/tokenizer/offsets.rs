//! Byte positions to character positions.

/// Counts the characters of a text up to positions that never go back far.
pub(super) struct CharCounter<'a> {
    text: &'a [u8],
    byte: usize,
    chars: usize,
}

impl<'a> CharCounter<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text: text.as_bytes(), byte: 0, chars: 0 }
    }

    /// The range in characters of a range in bytes.
    pub(super) fn range(&mut self, (start, end): (usize, usize)) -> (usize, usize) {
        (self.at(start), self.at(end))
    }

    fn at(&mut self, byte: usize) -> usize {
        // A character that became several tokens is the source of each of them: the next start may lie before the
        // last end.
        if byte < self.byte {
            self.chars -= starts(&self.text[byte..self.byte]);
        } else {
            self.chars += starts(&self.text[self.byte..byte]);
        }
        self.byte = byte;
        self.chars
    }
}

/// How many characters start in `bytes`.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}
