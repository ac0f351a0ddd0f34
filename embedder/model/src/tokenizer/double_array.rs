//! A read-only trie in a double array, in the layout of darts-clone (which yada also writes).
//!
//! Each unit has 32 bits: bits 0-7 are the label of the edge into the node (with bit 31 clear), bit
//! 8 is set if the node has a value, bit 9 if the offset is scaled by 256, bits 10-30 are the
//! offset of the children. A value unit has the value in bits 0-30.

/// A trie.
#[derive(Debug)]
pub(super) struct DoubleArray {
    units: Vec<u32>,
}

impl DoubleArray {
    /// Reads little-endian units. Trailing bytes of an incomplete unit are ignored.
    ///
    /// No key contains NUL, but the root and unused units may look like its edge. They get a label
    /// that is not in UTF-8.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        let units = bytes.chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        Self { units: units.map(|unit| if is_edge(unit, 0) { unit | 0xff } else { unit }).collect() }
    }

    /// Calls `found(length, value)` for each key that `text` starts with, shortest first.
    #[inline]
    pub(super) fn prefixes(&self, text: &[u8], mut found: impl FnMut(usize, u32)) {
        let Some(&root) = self.units.first() else { return };
        let mut node = children(root);
        for (index, &byte) in text.iter().enumerate() {
            let position = node ^ u32::from(byte);
            let Some(&unit) = self.units.get(position as usize) else { return };
            if !is_edge(unit, byte) {
                return;
            }
            node = position ^ children(unit);
            if unit >> 8 & 1 == 1
                && let Some(&value) = self.units.get(node as usize)
            {
                found(index + 1, value & 0x7fff_ffff);
            }
        }
    }

    /// Whether some key starts with `prefix`.
    pub(super) fn has_prefix(&self, prefix: &[u8]) -> bool {
        let Some(&root) = self.units.first() else { return false };
        let mut node = children(root);
        for &byte in prefix {
            let position = node ^ u32::from(byte);
            match self.units.get(position as usize) {
                Some(&unit) if is_edge(unit, byte) => node = position ^ children(unit),
                _ => return false,
            }
        }
        true
    }
}

/// Whether a unit is the edge of a byte.
#[inline]
fn is_edge(unit: u32, byte: u8) -> bool {
    unit & 0x8000_00ff == u32::from(byte)
}

#[inline]
fn children(unit: u32) -> u32 {
    (unit >> 10) << ((unit & 1 << 9) >> 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_come_shortest_first() {
        let keys: [(&str, u32); 4] = [("a", 7), ("ab", 8), ("abcd", 9), ("b", 10)];
        let trie = DoubleArray::from_bytes(&yada::builder::DoubleArrayBuilder::build(&keys).unwrap());
        let mut found = Vec::new();
        trie.prefixes(b"abcx", |length, value| found.push((length, value)));
        assert_eq!(found, [(1, 7), (2, 8)]);
        assert!(trie.has_prefix(b"abc") && !trie.has_prefix(b"ac") && !trie.has_prefix(b"abcde"));
        trie.prefixes(b"\0a", |_, _| panic!("no key has a NUL"));
        assert!(!trie.has_prefix(b"\0a") && !trie.has_prefix(b"a\0b"));
        DoubleArray::from_bytes(b"").prefixes(b"a", |_, _| panic!("an empty trie has no keys"));
    }
}
