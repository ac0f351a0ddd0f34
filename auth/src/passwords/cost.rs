//! What hashing one password costs, us and whoever steals the hashes.

use std::ops::RangeInclusive;

/// From OWASP's least for argon2id to what would exhaust a server.
const MEMORY_KIB: RangeInclusive<u32> = 19 * 1024..=1024 * 1024;
/// From OWASP's least at that memory to what nobody would wait for.
const PASSES: RangeInclusive<u32> = 2..=32;

/// What hashing a password with argon2id costs. The default is OWASP's recommendation: 19 MiB and two passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    memory_kib: u32,
    passes: u32,
}

impl Cost {
    /// A cost of so many KiB, and passes over them.
    ///
    /// # Errors
    ///
    /// Says what is less than recommended, or more than reasonable.
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

    /// KiB of memory that one hash takes.
    #[must_use]
    pub fn memory_kib(self) -> u32 {
        self.memory_kib
    }

    /// Passes over that memory.
    #[must_use]
    pub fn passes(self) -> u32 {
        self.passes
    }

    /// Whether a hash that was made elsewhere takes more than any of ours.
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
    fn a_cost_is_recommended_and_bearable() {
        let default = Cost::default();
        assert_eq!(Cost::new(19 * 1024, 2), Ok(default));
        assert_eq!((default.memory_kib(), default.passes()), (19 * 1024, 2));
        assert!(Cost::new(1024 * 1024, 32).is_ok());
        for (memory_kib, passes) in [(19 * 1024 - 1, 2), (1024 * 1024 + 1, 2), (0, 2), (u32::MAX, 2)] {
            let refused = Cost::new(memory_kib, passes).unwrap_err();
            assert!(
                refused.ends_with(&format!("19456 to 1048576 KiB of memory, not {memory_kib}")),
                "{refused}"
            );
        }
        for passes in [0, 1, 33, u32::MAX] {
            let refused = Cost::new(19 * 1024, passes).unwrap_err();
            assert_eq!(refused, format!("hashing a password takes 2 to 32 passes, not {passes}"));
        }
    }
}
