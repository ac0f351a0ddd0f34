//! The memory that hashing fills.

use argon2::Block;

/// The memory of a hash, kept for the next one: 19 MiB that come and go with each would cost time.
#[derive(Debug)]
pub(super) struct Memory {
    blocks: Vec<Block>,
    /// Blocks of 1 KiB that are kept.
    usual: usize,
}

impl Memory {
    /// Takes nothing yet.
    pub(super) fn new(usual: usize) -> Self {
        Self { blocks: Vec::new(), usual }
    }

    /// Blocks that are there.
    #[cfg(test)]
    pub(super) fn blocks(&self) -> usize {
        self.blocks.len()
    }

    /// The memory, in place of which this has none any more.
    pub(super) fn take(&mut self) -> Self {
        Self { blocks: std::mem::take(&mut self.blocks), usual: self.usual }
    }

    /// Lends `count` blocks, whatever is in them. More than the usual ones are given back at once.
    pub(super) fn lend<T>(
        &mut self,
        count: usize,
        use_up: impl FnOnce(&mut [Block]) -> T,
    ) -> Result<T, String> {
        let missing = count.saturating_sub(self.blocks.len());
        // An error, where `resize` alone would end the process.
        self.blocks.try_reserve_exact(missing).map_err(|_| format!("no memory for {count} KiB"))?;
        self.blocks.resize(self.blocks.len() + missing, Block::new());
        let result = use_up(&mut self.blocks[..count]);
        self.blocks.truncate(self.usual);
        self.blocks.shrink_to(self.usual);
        Ok(result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_usual_is_kept() {
        let mut memory = Memory::new(64);
        assert_eq!(memory.blocks.capacity(), 0);
        for (count, kept) in [(8, 8), (64, 64), (1000, 64), (8, 64)] {
            assert_eq!(memory.lend(count, |blocks| blocks.len()), Ok(count));
            assert_eq!((memory.blocks.len(), memory.blocks.capacity()), (kept, kept));
        }
    }

    #[test]
    fn too_much_is_refused() {
        let refused = Memory::new(8).lend(usize::MAX / 1024, |_| ()).unwrap_err();
        assert!(refused.starts_with("no memory for"), "{refused}");
    }
}
