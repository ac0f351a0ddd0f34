//! Converts byte positions to character positions.

/// Counts the characters of a text up to a position, from the previous position.
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
        // Several tokens of one character have that character as their source: a start may be in
        // front of the previous end.
        if byte < self.byte {
            self.chars -= starts(&self.text[byte..self.byte]);
        } else {
            self.chars += starts(&self.text[self.byte..byte]);
        }
        self.byte = byte;
        self.chars
    }
}

/// The number of characters that start in `bytes`.
fn starts(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}
