//! The checksums of TensorFlow's files: crc32c, masked as in LevelDB.

/// The masked checksum of data whose crc32c is `crc`.
///
/// The mask makes checksums of data that contains checksums as good as others.
pub(super) fn mask(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// Whether `masked` is the masked checksum of `data`.
pub(super) fn matches(data: &[u8], masked: u32) -> bool {
    mask(crc32c::crc32c(data)) == masked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masked_checksum_matches_known_values() {
        // From the tests of LevelDB (crc32c_test.cc) and RFC 3720.
        assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c::crc32c(&[0xff; 32]), 0x62a8_ab43);
        assert!(matches(&[0; 32], mask(0x8a91_36aa)));
        assert!(!matches(&[1; 32], mask(0x8a91_36aa)));
        assert_eq!(mask(0), 0xa282_ead8);
    }
}
