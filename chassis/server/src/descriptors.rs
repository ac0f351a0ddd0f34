//! The limit on open files, and how it is shared between connections and everything else.

use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{debug, warn};

/// File descriptors that are reserved for the admin port, the connections to other services, and
/// files; at most half of all.
const RESERVED: u64 = 512;
/// Stands for the absence of a limit.
const UNLIMITED: u64 = 1 << 20;

/// Raises the soft limit on open files to the hard one: the low soft limit is for programs that
/// call select(2).
///
/// The first call in a process does it: limits on connections are computed from it, before and
/// after the service starts.
pub(crate) fn raise_limit() {
    static RAISED: Once = Once::new();
    RAISED.call_once(raise_now);
}

fn raise_now() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        Ok(()) => debug!(from = limit.current, to = limit.maximum, "the limit on open files was raised"),
        Err(failure) => warn!(%failure, "the limit on open files cannot be raised"),
    }
}

/// The number of connections that a service may accept on its public port: the limit on open files
/// without a reserve for the admin port, the connections to other services, and files.
#[must_use]
pub fn connection_limit() -> usize {
    let limit = open_files();
    usize::try_from(limit - reserve(limit)).unwrap_or(usize::MAX)
}

/// The number of connections that the admin port may accept: a quarter of the reserve.
pub(crate) fn admin_connection_limit() -> usize {
    usize::try_from(reserve(open_files()) / 4).unwrap_or(usize::MAX).max(1)
}

fn open_files() -> u64 {
    raise_limit();
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED).min(UNLIMITED)
}

fn reserve(limit: u64) -> u64 {
    RESERVED.min(limit / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_few_descriptors_and_512_of_many_are_reserved() {
        for (limit, reserved) in [(128, 64), (1_024, 512), (1_025, 512), (65_536, 512)] {
            assert_eq!(reserve(limit), reserved, "{limit}");
        }
        assert!(connection_limit() >= 1 && admin_connection_limit() >= 1);
    }
}
