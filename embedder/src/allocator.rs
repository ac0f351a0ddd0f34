//! Memory of earlier passes is kept for the next ones.

/// Bytes that the allocator keeps at the end of each heap. The largest tensors of a full batch have about 5 MB.
#[cfg(target_env = "gnu")]
const KEPT: i32 = 32 << 20;

/// Tells glibc's allocator to keep the memory of a pass. By itself it gives most of it back to the kernel after each one,
/// which then clears it page by page for the next: a tenth of a core's time.
///
/// Only so many heaps are made as there are threads that run passes, and two for all other threads, so that no other heap
/// keeps memory, too.
pub fn keep_memory_of_passes(passes: usize) {
    #[cfg(target_env = "gnu")]
    {
        // The largest threshold that glibc takes: above, a block is got from the kernel and given back to it each time.
        const LARGEST_THRESHOLD: i32 = 32 << 20;
        let heaps = i32::try_from(passes).unwrap_or(i32::MAX).saturating_add(2);
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, LARGEST_THRESHOLD),
            (libc::M_TRIM_THRESHOLD, KEPT),
            (libc::M_TOP_PAD, 1 << 20),
            (libc::M_ARENA_MAX, heaps),
        ] {
            #[expect(unsafe_code, reason = "a setting of the C library has no safe interface")]
            // SAFETY: mallopt may be called at any time, takes a lock of its own, and is given numbers alone.
            let set = unsafe { libc::mallopt(parameter, value) };
            if set == 0 {
                tracing::debug!(parameter, value, "the allocator does not take a setting");
            }
        }
    }
}

/// Gives memory that is not in use back to the kernel: what loading the model took, say.
pub fn give_back_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
        // SAFETY: malloc_trim may be called at any time and takes locks of its own.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}
