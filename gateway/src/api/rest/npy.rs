//! Vectors as a NumPy file (format version 1.0 of `numpy.lib.format`), little-endian and in C order.

use super::response_format::NumberFormat;
use bytes::BufMut;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";
/// The array begins at a multiple of this.
const ALIGNMENT: usize = 64;

/// The bytes before the rows.
pub(super) fn header(format: NumberFormat, rows: usize, columns: usize) -> Vec<u8> {
    let descr = format.descr();
    let description =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}");
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
    use muse_proto::v1::Embedding;

    use super::*;

    #[test]
    fn npy_file_has_header_and_rows() {
        let rows = [[1.0, -2.5, 0.0], [f32::MIN_POSITIVE, 3.0, 4.0]];
        let rows = rows.map(|row| Embedding::new(&row, 0));
        let mut file = header(NumberFormat::Float32, 2, 3);
        rows.iter().for_each(|row| file.put_slice(&row.packed));
        assert_eq!(&file[..10], b"\x93NUMPY\x01\x00\x76\x00");
        let text = std::str::from_utf8(&file[10..128]).unwrap();
        assert!(text.starts_with("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }   "), "{text}");
        assert!(text.ends_with(" \n"));
        let numbers: Vec<f32> =
            file[128..].chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect();
        assert_eq!(numbers, [1.0, -2.5, 0.0, f32::MIN_POSITIVE, 3.0, 4.0]);
        for rows in [0, 1, 9, 10, 4_096, 1_000_000] {
            assert_eq!(header(NumberFormat::Int8, rows, 512).len() % ALIGNMENT, 0, "{rows}");
        }
    }
}
