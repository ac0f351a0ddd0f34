//! How much goes through a task's connections until its thread turns to others.

use std::{
    io::IoSlice,
    task::{Context, Poll},
};

use tokio::task::coop::poll_proceed;

/// Bytes that are read or written in one go, and in one poll of a task: a fifth of a millisecond's, the kernel's work included.
pub(super) const BURST: usize = 64 << 10;
/// What a poll of a task may do, in tokio's budget. There each read and each write is one, though it may be of megabytes.
const BUDGET: usize = 128;

/// Takes what was read or written out of the budget of this poll.
pub(super) fn charge(bytes: usize, cx: &mut Context<'_>) {
    for _ in 0..bytes / (BURST / BUDGET) {
        match poll_proceed(cx) {
            Poll::Ready(one) => one.made_progress(),
            Poll::Pending => return,
        }
    }
}

/// The slices that are not longer than `most` together; none if the first is.
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
