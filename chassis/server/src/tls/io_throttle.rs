//! I/O budget of a task: the bytes that it may read and write before its thread runs other tasks.

use std::{
    io::IoSlice,
    task::{Context, Poll},
};

use tokio::task::coop::poll_proceed;

/// Bytes that one call, and one poll of a task, may read or write: about 0.2 ms, including the work
/// of the kernel.
pub(super) const BURST: usize = 64 << 10;
/// tokio's budget of a poll, in which each read or write counts as one, even of megabytes.
const BUDGET: usize = 128;

/// Charges the bytes that were read or written to the budget of this poll.
pub(super) fn charge(bytes: usize, cx: &mut Context<'_>) {
    for _ in 0..bytes / (BURST / BUDGET) {
        match poll_proceed(cx) {
            Poll::Ready(one) => one.made_progress(),
            Poll::Pending => return,
        }
    }
}

/// The leading slices with at most `limit` bytes together; none if the first is longer.
pub(super) fn within<'a, 'b>(slices: &'a [IoSlice<'b>], limit: usize) -> &'a [IoSlice<'b>] {
    let mut sum = 0;
    let fits = |slice: &&IoSlice<'_>| {
        sum += slice.len();
        sum <= limit
    };
    &slices[..slices.iter().take_while(fits).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leading_slices_fit_into_the_limit() {
        let bytes = [0; 10];
        let slices = [&bytes[..4], &bytes[..0], &bytes[..5], &bytes].map(IoSlice::new);
        for (limit, count) in [(3, 0), (4, 2), (8, 2), (9, 3), (18, 3), (19, 4), (100, 4)] {
            assert_eq!(within(&slices, limit).len(), count, "{limit}");
        }
    }
}
