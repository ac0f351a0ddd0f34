//! Reads a LevelDB table, the format of `variables.index`.
//!
//! The footer has the position of the index block, which has that of each data block. A block is
//! followed by a byte for its compression and a checksum. Its entries share prefixes of keys with
//! the previous entry. A table of a model has hundreds of entries, so it is read completely; the
//! crate `sstable` is for tables that are searched, and panics on some damaged ones.

use std::borrow::Cow;

use super::checksum;

const MAGIC: u64 = 0xdb47_7524_8b80_fb57;
/// Two positions of up to 20 bytes each, and the magic number.
const FOOTER: usize = 48;
/// The compression and the checksum after a block.
const TRAILER: u64 = 5;
/// Snappy decompresses three bytes to at most 64.
const LARGEST_RATIO: usize = 22;
/// The longest key; names of variables are shorter. Prefixes make long keys from few bytes.
const KEY_BYTES: usize = 1 << 10;
/// The most entries; the original has 500.
const ENTRIES: usize = 1 << 15;

/// Why a table cannot be read, a clause.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct TableError(String);

impl TableError {
    fn new(reason: impl Into<String>) -> TableError {
        TableError(reason.into())
    }
}

/// A key and its value.
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// All entries of a table, in the order of their keys.
pub(super) fn read(table: &[u8]) -> Result<Vec<Entry>, TableError> {
    let not_a_table = || TableError::new("it is not a LevelDB table, or not a complete one");
    let (blocks, footer) = table.split_last_chunk::<FOOTER>().ok_or_else(not_a_table)?;
    let (mut positions, magic) = footer.split_last_chunk::<8>().ok_or_else(not_a_table)?;
    if u64::from_le_bytes(*magic) != MAGIC {
        return Err(not_a_table());
    }
    let malformed = || TableError::new("its footer is malformed");
    let metaindex = BlockPosition::take(&mut positions).ok_or_else(malformed)?;
    let index = BlockPosition::take(&mut positions).ok_or_else(malformed)?;
    // Only its checksum counts: there are no filters.
    read_block(blocks, metaindex)?;

    let mut entries: Vec<Entry> = Vec::new();
    let mut end = 0;
    for_each_entry(&read_block(blocks, index)?, |_, mut value| {
        let position = BlockPosition::take(&mut value)
            .ok_or_else(|| TableError::new("its index has a malformed position"))?;
        // As they are written. So no block is read twice.
        if position.offset < end {
            return Err(TableError::new("its blocks overlap"));
        }
        end = position.offset.saturating_add(position.size);
        for_each_entry(&read_block(blocks, position)?, |key, value| {
            if entries.last().is_some_and(|(last, _)| last.as_slice() >= key) {
                return Err(TableError::new("its keys are not in order"));
            }
            if entries.len() == ENTRIES {
                return Err(TableError::new(format!("it has more than {ENTRIES} entries")));
            }
            entries.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
    })?;
    Ok(entries)
}

/// Where a block is, without its trailer.
#[derive(Debug, Clone, Copy)]
struct BlockPosition {
    offset: u64,
    size: u64,
}

impl BlockPosition {
    fn take(bytes: &mut &[u8]) -> Option<BlockPosition> {
        Some(BlockPosition { offset: take_varint(bytes)?, size: take_varint(bytes)? })
    }
}

fn read_block(table: &[u8], position: BlockPosition) -> Result<Cow<'_, [u8]>, TableError> {
    let BlockPosition { offset, size } = position;
    let damaged = |reason: &str| TableError::new(format!("the block at byte {offset} {reason}"));
    let end = offset.checked_add(size).and_then(|end| end.checked_add(TRAILER));
    let range = end.and_then(|end| Some(usize::try_from(offset).ok()?..usize::try_from(end).ok()?));
    let block = range.and_then(|range| table.get(range)).ok_or_else(|| damaged("is outside the file"))?;
    let (data, masked) = block.split_last_chunk::<4>().ok_or_else(|| damaged("is empty"))?;
    if !checksum::matches(data, u32::from_le_bytes(*masked)) {
        return Err(damaged("does not match its checksum"));
    }
    match data.split_last() {
        Some((0, contents)) => Ok(Cow::Borrowed(contents)),
        Some((1, compressed)) => {
            let length = snap::raw::decompress_len(compressed).unwrap_or(usize::MAX);
            if length / LARGEST_RATIO > compressed.len() {
                return Err(damaged("is not valid Snappy data"));
            }
            let contents = snap::raw::Decoder::new().decompress_vec(compressed);
            Ok(Cow::Owned(contents.map_err(|_| damaged("is not valid Snappy data"))?))
        }
        _ => Err(damaged("has an unknown compression")),
    }
}

/// Calls `visit` with the key and the value of each entry of a block.
fn for_each_entry(
    block: &[u8],
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<(), TableError>,
) -> Result<(), TableError> {
    let malformed = || TableError::new("a block is malformed");
    // It ends with the positions of the restart points, for searches, and their number.
    let (rest, restarts) = block.split_last_chunk::<4>().ok_or_else(malformed)?;
    let restarts = usize::try_from(u32::from_le_bytes(*restarts)).ok().and_then(|count| count.checked_mul(4));
    let length = restarts.and_then(|bytes| rest.len().checked_sub(bytes)).ok_or_else(malformed)?;
    let mut rest = &rest[..length];
    let mut key: Vec<u8> = Vec::new();
    while !rest.is_empty() {
        let mut number = || take_varint(&mut rest).and_then(|number| usize::try_from(number).ok());
        let (Some(shared), Some(unshared), Some(value)) = (number(), number(), number()) else {
            return Err(malformed());
        };
        if shared > key.len() || unshared > KEY_BYTES - shared.min(KEY_BYTES) {
            return Err(malformed());
        }
        let (suffix, after) = rest.split_at_checked(unshared).ok_or_else(malformed)?;
        let (value, after) = after.split_at_checked(value).ok_or_else(malformed)?;
        rest = after;
        key.truncate(shared);
        key.extend_from_slice(suffix);
        visit(&key, value)?;
    }
    Ok(())
}

/// Takes a varint off the front.
pub(super) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}
