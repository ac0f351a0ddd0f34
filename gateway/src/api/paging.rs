//! Pages of lists.

use muse_proto::{Error, Reason};

/// Items of a page, unless the request has another limit.
const DEFAULT_LIMIT: u16 = 100;

/// The size of a page, of the query parameter `limit`.
pub(super) fn page_size(limit: Option<u16>) -> Result<i32, Error> {
    match limit.unwrap_or(DEFAULT_LIMIT) {
        limit @ 1..=1000 => Ok(limit.into()),
        _ => Err(Error::new(Reason::InvalidArgument, "limit: it is 1 to 1000").with_field("limit")),
    }
}

/// The value of `next` in a response, of the token of the next page.
pub(super) fn next(page_token: String) -> Option<String> {
    Some(page_token).filter(|token| !token.is_empty())
}
