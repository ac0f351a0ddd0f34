//! Pages of lists.

use muse_proto::Error;

use crate::error::invalid;

const DEFAULT_PAGE_SIZE: u64 = 100;
const MAX_PAGE_SIZE: u64 = 1000;

/// The size of a page, of a list of users, keys or usage.
pub(super) fn page_size(requested: i32) -> Result<u64, Error> {
    match requested {
        0 => Ok(DEFAULT_PAGE_SIZE),
        1.. => Ok(u64::from(requested.unsigned_abs()).min(MAX_PAGE_SIZE)),
        _ => Err(invalid("page_size", "page_size must not be negative")),
    }
}
