//! The cost of hashing a password, for the service and for a thief of the hashes.

use std::ops::RangeInclusive;

/// From OWASP's minimum for argon2id to what a server can afford.
const MEMORY_KIB: RangeInclusive<u32> = 19 * 1024..=1024 * 1024;
/// From OWASP's minimum at that memory to an acceptable waiting time.
const PASSES: RangeInclusive<u32> = 2..=32;

/// The cost of hashing a password with argon2id. The default is OWASP's recommendation: 19 MiB and
/// two passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// A cost of so many KiB and passes.
    ///
    /// # Errors
    ///
    /// If a value is out of range: below OWASP's minimum, or too much for a server.
    pub fn new(memory_kib: u32, passes: u32) -> Result<Self, String> {
        let (least, most) = MEMORY_KIB.into_inner();
        if !MEMORY_KIB.contains(&memory_kib) {
            return Err(format!(
                "hashing a password takes {least} to {most} KiB of memory, not {memory_kib}"
            ));
        }
        let (least, most) = PASSES.into_inner();
        if !PASSES.contains(&passes) {
            return Err(format!("hashing a password takes {least} to {most} passes, not {passes}"));
        }
        Ok(Self { memory_kib, passes })
    }

    /// Memory of one hash, in KiB.
    #[must_use]
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over that memory.
    #[must_use]
    pub fn passes(self) -> u32 {
        self.passes
    }

    /// Whether a stored hash has a higher cost than is allowed.
    pub(super) fn is_exceeded_by(memory_kib: u32, passes: u32) -> bool {
        memory_kib > *MEMORY_KIB.end() || passes > *PASSES.end()
    }
}

impl Default for Cost {
    fn default() -> Self {
        Self { memory_kib: *MEMORY_KIB.start(), passes: *PASSES.start() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_out_of_range_is_rejected() {
        let default = Cost::default();
        assert_eq!(Cost::new(19 * 1024, 2), Ok(default));
        assert_eq!((default.memory_kib(), default.passes()), (19 * 1024, 2));
        assert!(Cost::new(1024 * 1024, 32).is_ok());
        for (memory_kib, passes) in [(19 * 1024 - 1, 2), (1024 * 1024 + 1, 2), (0, 2), (u32::MAX, 2)] {
            let error = Cost::new(memory_kib, passes).unwrap_err();
            assert!(error.ends_with(&format!("19456 to 1048576 KiB of memory, not {memory_kib}")), "{error}");
        }
        for passes in [0, 1, 33, u32::MAX] {
            let error = Cost::new(19 * 1024, passes).unwrap_err();
            assert_eq!(error, format!("hashing a password takes 2 to 32 passes, not {passes}"));
        }
    }
}
