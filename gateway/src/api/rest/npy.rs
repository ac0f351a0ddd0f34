//! Vectors as a NumPy file (format version 1.0 of `numpy.lib.format`): float32, little-endian, in C order.

use bytes::BufMut;
use muse_proto::v1::Embedding;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The array begins at a multiple of this.
const ALIGNMENT: usize = 64;

/// The bytes before the rows: there is a row for each vector, and all have the same length.
pub(super) fn header(rows: &[Embedding]) -> Vec<u8> {
    let columns = rows.first().map_or(0, Embedding::dimension);
    let description =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {columns}), }}", rows.len());
    // Magic, two bytes for the length of the header, the header, a line feed.
    let unpadded = MAGIC.len() + 2 + description.len() + 1;
    let begin = unpadded.next_multiple_of(ALIGNMENT);
    let header = begin - MAGIC.len() - 2;

    let mut file = Vec::with_capacity(begin);
    file.put_slice(MAGIC);
    // The description has two numbers, so that the header is far shorter than 64 KiB.
    file.put_u16_le(header as u16);
    file.put_slice(description.as_bytes());
    file.put_bytes(b' ', begin - unpadded);
    file.put_u8(b'\n');
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npy_file_has_header_and_rows() {
        let rows = [[1.0, -2.5, 0.0], [f32::MIN_POSITIVE, 3.0, 4.0]];
        let rows = rows.map(|row| Embedding::new(&row, 0));
        let mut file = header(&rows);
        rows.iter().for_each(|row| file.put_slice(&row.packed));
        assert_eq!(&file[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&file[10..128]).unwrap();
        assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   "), "{text}");
        assert!(text.ends_with(" \n"));
        let numbers: Vec<f32> =
            file[128..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(numbers, [1.0, -2.5, 0.0, f32::MIN_POSITIVE, 3.0, 4.0]);
        for rows in [0, 1, 9, 10, 4_096, 1_000_000] {
            let header = header(&vec![Embedding::default(); rows]);
            assert_eq!(header.len() % ALIGNMENT, 0, "{rows}");
        }
    }
}
