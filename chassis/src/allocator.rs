//! What glibc's allocator keeps of memory that is not in use, and what it gives back. Other C libraries' have none of these
//! settings.

/// The largest block that can be told apart from small ones.
#[cfg(target_env = "gnu")]
const LARGEST_THRESHOLD: i32 = 32 << 20;

/// Keeps memory of which as much will be used again soon, such as that of a forward pass. By itself the allocator gives most
/// of it back to the kernel after each one, which then clears it page by page for the next: a tenth of a core's time.
///
/// Only so many heaps are made as there are `threads` that use much memory, and two for all others, so that no other heap
/// keeps memory, too.
pub fn keep_memory(threads: usize) {
    #[cfg(target_env = "gnu")]
    {
        let heaps = i32::try_from(threads).unwrap_or(i32::MAX).saturating_add(2);
        set(libc::M_MMAP_THRESHOLD, LARGEST_THRESHOLD);
        set(libc::M_TRIM_THRESHOLD, LARGEST_THRESHOLD);
        set(libc::M_TOP_PAD, 1 << 20);
        set(libc::M_ARENA_MAX, heaps);
    }
}

/// Gives blocks of a megabyte and more back to the kernel as soon as they are free. By itself the allocator does so once, and
/// then takes them for something that will be needed again.
pub fn give_back_large_blocks() {
    #[cfg(target_env = "gnu")]
    set(libc::M_MMAP_THRESHOLD, 1 << 20);
}

/// Gives memory that is not in use back to the kernel: what loading a model took, say.
pub fn give_back_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
        // SAFETY: malloc_trim may be called at any time and takes locks of its own.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

#[cfg(target_env = "gnu")]
fn set(parameter: i32, value: i32) {
    #[expect(unsafe_code, reason = "a setting of the C library has no safe interface")]
    // SAFETY: mallopt may be called at any time, takes a lock of its own, and is given numbers alone.
    let set = unsafe { libc::mallopt(parameter, value) };
    if set == 0 {
        tracing::debug!(parameter, value, "the allocator does not take a setting");
    }
}
