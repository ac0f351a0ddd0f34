//! I/O budget of a task: how many bytes it reads and writes until its thread runs other tasks.

use std::{
    io::IoSlice,
    task::{Context, Poll},
};

use tokio::task::coop::poll_proceed;

/// Bytes that are read or written by one call, and by one poll of a task: about 0.2 ms, the kernel's work included.
pub(super) const BURST: usize = 64 << 10;
/// tokio's budget for a poll of a task, in which each read and each write counts as one, even of megabytes.
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

/// The leading slices that have at most `most` bytes together; none if the first is longer.
pub(super) fn within<'a, 'b>(slices: &'a [IoSlice<'b>], most: usize) -> &'a [IoSlice<'b>] {
    let mut sum = 0;
    let fits = |slice: &&IoSlice<'_>| {
        sum += slice.len();
        sum <= most
    };
    &slices[..slices.iter().take_while(fits).count()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_from_the_front() {
        let bytes = [0; 10];
        let slices = [&bytes[..4], &bytes[..0], &bytes[..5], &bytes].map(IoSlice::new);
        for (most, count) in [(3, 0), (4, 2), (8, 2), (9, 3), (18, 3), (19, 4), (100, 4)] {
            assert_eq!(within(&slices, most).len(), count, "{most}");
        }
    }
}
