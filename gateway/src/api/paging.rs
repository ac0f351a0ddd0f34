//! Pages of lists.

use muse_proto::{Error, Reason};
use tonic::Status;

use crate::upstream::failure;

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

/// The error of a call that lists, in terms of the query.
pub(super) fn list_failure(status: &Status) -> Error {
    let error = failure(status);
    if error.field() != Some("page_token") {
        return error;
    }
    Error::new(error.reason(), "after: it is not `next` of a page before").with_field("after")
}
