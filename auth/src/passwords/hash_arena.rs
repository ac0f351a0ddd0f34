//! The memory that argon2 fills.

use argon2::Block;

/// A reusable buffer for hashing: allocating 19 MiB for each hash would take time.
#[derive(Debug)]
pub(super) struct HashArena {
    blocks: Vec<Block>,
    /// Blocks of 1 KiB that are retained after a hash.
    retained: usize,
}

impl HashArena {
    /// An arena without memory.
    pub(super) fn new(retained: usize) -> Self {
        Self { blocks: Vec::new(), retained }
    }

    /// Another arena without memory, which retains as much.
    pub(super) fn empty(&self) -> Self {
        Self::new(self.retained)
    }

    /// Allocated blocks.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// Calls a function with `count` blocks of any contents. Blocks beyond the retained ones are
    /// freed afterwards.
    pub(super) fn with_blocks<T>(
        &mut self,
        count: usize,
        function: impl FnOnce(&mut [Block]) -> T,
    ) -> Result<T, String> {
        let missing = count.saturating_sub(self.blocks.len());
        // `resize` alone would abort the process.
        self.blocks.try_reserve_exact(missing).map_err(|_| format!("no memory for {count} KiB"))?;
        self.blocks.resize(self.blocks.len() + missing, Block::new());
        let result = function(&mut self.blocks[..count]);
        self.blocks.truncate(self.retained);
        self.blocks.shrink_to(self.retained);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_arena_is_shrunk_after_use() {
        let mut arena = HashArena::new(64);
        assert_eq!(arena.blocks.capacity(), 0);
        for (count, retained) in [(8, 8), (64, 64), (1000, 64), (8, 64)] {
            assert_eq!(arena.with_blocks(count, |blocks| blocks.len()), Ok(count));
            assert_eq!((arena.blocks.len(), arena.blocks.capacity()), (retained, retained));
        }
    }

    #[test]
    fn impossible_allocation_is_an_error() {
        let error = HashArena::new(8).with_blocks(usize::MAX / 1024, |_| ()).unwrap_err();
        assert!(error.starts_with("no memory for"), "{error}");
    }
}
