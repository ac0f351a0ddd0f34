//! Writes LevelDB tables, with all variants that readers must support.

use snap::raw::Encoder;

/// Variants of a table.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TableOptions {
    /// Compresses the blocks.
    pub(crate) snappy: bool,
    /// Entries between restart points, at which a key has no shared prefix.
    pub(crate) restart_interval: usize,
    /// Size after which a block ends.
    pub(crate) block_bytes: usize,
}

/// A table with the entries, whose keys are in order.
pub(crate) fn write_table(entries: &[(Vec<u8>, Vec<u8>)], options: TableOptions) -> Vec<u8> {
    let mut table = Vec::new();
    let mut index = Vec::new();
    let mut rest = entries;
    while let Some(last) = rest.first() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|(key, value)| {
            bytes += key.len() + value.len();
            bytes <= options.block_bytes
        });
        let count = fitting.count().max(1);
        let (block, others) = rest.split_at(count);
        rest = others;
        let last = block.last().unwrap_or(last);
        index.push((last.0.clone(), append_block(&mut table, block, options)));
    }
    let metaindex = append_block(&mut table, &[], options);
    let index = append_block(&mut table, &index, options);
    let mut footer = [metaindex, index].concat();
    footer.resize(40, 0);
    table.extend(footer);
    table.extend(0xdb47_7524_8b80_fb57_u64.to_le_bytes());
    table
}

/// Appends a block, and returns its position.
fn append_block(table: &mut Vec<u8>, entries: &[(Vec<u8>, Vec<u8>)], options: TableOptions) -> Vec<u8> {
    let contents = block(entries, options.restart_interval);
    let mut data =
        if options.snappy { Encoder::new().compress_vec(&contents).expect("it is small") } else { contents };
    let position = [varint(table.len() as u64), varint(data.len() as u64)].concat();
    data.push(u8::from(options.snappy));
    let masked = mask(crc32c::crc32c(&data));
    table.extend(data);
    table.extend(masked.to_le_bytes());
    position
}

/// The contents of a block.
pub(crate) fn block(entries: &[(Vec<u8>, Vec<u8>)], restart_interval: usize) -> Vec<u8> {
    let (mut contents, mut restarts) = (Vec::new(), Vec::new());
    let mut previous: &[u8] = &[];
    for (position, (key, value)) in entries.iter().enumerate() {
        let mut shared = key.iter().zip(previous).take_while(|(a, b)| a == b).count();
        if position % restart_interval == 0 {
            restarts.push(contents.len() as u32);
            shared = 0;
        }
        for number in [shared, key.len() - shared, value.len()] {
            contents.extend(varint(number as u64));
        }
        contents.extend(&key[shared..]);
        contents.extend(value);
        previous = key;
    }
    if restarts.is_empty() {
        restarts.push(0);
    }
    for restart in &restarts {
        contents.extend(restart.to_le_bytes());
    }
    contents.extend((restarts.len() as u32).to_le_bytes());
    contents
}

/// The mask of checksums.
pub(crate) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A varint.
pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}
