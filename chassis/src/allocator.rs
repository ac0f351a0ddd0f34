//! What glibc's allocator keeps of memory that is not in use, and what it gives back. Other C libraries' have none of these
//! settings.

/// The most that [`keep_memory`] can keep: the largest block that glibc can tell apart from small ones.
pub const MOST_KEPT: usize = 32 << 20;

/// Has each heap keep up to so many bytes (at most [`MOST_KEPT`]) that are not in use, and gives blocks of more back as soon as
/// they are free. It is for memory of which as much will be used again soon: by itself the allocator gives most of it back to
/// the kernel, which then clears it page by page for the next use.
///
/// Only so many heaps are made as there are `threads` that use much memory, and two for all others, so that no other heap
/// keeps memory, too.
pub fn keep_memory(threads: usize, bytes: usize) {
    #[cfg(target_env = "gnu")]
    {
        let heaps = i32::try_from(threads).unwrap_or(i32::MAX).saturating_add(2);
        let bytes = i32::try_from(bytes.min(MOST_KEPT)).unwrap_or(i32::MAX);
        set(libc::M_MMAP_THRESHOLD, bytes);
        set(libc::M_TRIM_THRESHOLD, bytes);
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
