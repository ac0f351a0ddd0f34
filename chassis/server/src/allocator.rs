//! What glibc's allocator keeps of memory that is not in use, and what it gives back. Other C libraries' have none of these
//! settings.

/// The most that [`configure_allocator`] can keep: the largest block that glibc can tell apart from small ones.
pub const MOST_KEPT: usize = 32 << 20;

/// Has each heap keep up to so many bytes (at most [`MOST_KEPT`]) that are not in use, and gives blocks of more back as soon as
/// they are free. It is for memory of which as much will be used again soon: by itself the allocator gives most of it back to
/// the kernel, which then clears it page by page for the next use.
///
/// Only so many heaps are made as there are `threads` that use much memory, and two for all others, so that no other heap
/// keeps memory, too.
pub fn configure_allocator(threads: usize, bytes: usize) {
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
/// then takes them for something that will be needed again: after the first block of 16 MB each of its heaps keeps up to 32 MB
/// at its end, where no trim reaches.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        set(libc::M_MMAP_THRESHOLD, 1 << 20);
        set(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Gives memory that is not in use back to the kernel: what loading a model took, say.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
        // SAFETY: malloc_trim may be called at any time and takes locks of its own.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// Starts a thread, once in a process, that gives memory back to the kernel when much of it was free at two looks in a row: after
/// a burst of large requests, and not between the requests of one. By itself glibc returns only what is free at the end of a
/// heap, and keeps whatever lies below the last block in use.
pub fn return_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        static STARTED: std::sync::Once = std::sync::Once::new();
        STARTED.call_once(|| {
            let thread = std::thread::Builder::new().name("muse-trim".to_owned()).spawn(trim_now_and_then);
            if let Err(failure) = thread {
                tracing::warn!(%failure, "unused memory is not returned");
            }
        });
    }
}

/// The thread of [`return_unused_memory`]. It has the usual priority: it takes the locks of the heaps, and must not wait for a
/// core meanwhile.
#[cfg(target_env = "gnu")]
fn trim_now_and_then() {
    /// What is worth it: to fault so much in again takes about a millisecond.
    const MUCH: usize = 4 << 20;
    const BETWEEN_LOOKS: std::time::Duration =
        std::time::Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });

    let (mut before, mut rest) = (0, 0);
    loop {
        std::thread::sleep(BETWEEN_LOOKS);
        let unused = not_in_use().saturating_sub(rest);
        if unused.min(before) < MUCH {
            before = unused;
            continue;
        }
        trim();
        // What no trim returns: stacks, the ends of pages. It is not the resident memory: of that much may be in use
        // now, in the middle of a burst, and free at the next look.
        (before, rest) = (0, not_in_use());
        tracing::debug!(unused, rest, "returned unused memory");
    }
}

/// Bytes of the process that are in memory, without files, and not in use as far as the allocator knows. What the allocator
/// counts as free would not do: it includes what was returned.
#[cfg(target_env = "gnu")]
fn not_in_use() -> usize {
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    // SAFETY: mallinfo2 may be called at any time and takes locks of its own.
    let heaps = unsafe { libc::mallinfo2() };
    resident().saturating_sub(heaps.uordblks + heaps.hblkhd)
}

/// Bytes of the process that are in memory, without those of files; none where the kernel does not tell.
#[cfg(target_env = "gnu")]
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").ok().and_then(|numbers| {
        let mut numbers = numbers.split_whitespace().skip(1).map(str::parse::<usize>);
        let (resident, of_files) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
        Some(resident.saturating_sub(of_files))
    });
    pages.unwrap_or_default() * rustix::param::page_size()
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

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn freed_memory_below_a_used_block_is_returned() {
        return_unused_memory();
        // Blocks of a heap, with one in use above them: glibc alone returns none of it.
        let blocks: Vec<Vec<u8>> = (0..40_000).map(|_| vec![1; 4096]).collect();
        let last = vec![1_u8; 4096];
        let full = resident();
        drop(blocks);
        let began = Instant::now();
        while resident() + (100 << 20) > full {
            assert!(began.elapsed() < Duration::from_secs(60), "{} of {full} are still resident", resident());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(last);
    }

    #[test]
    fn memory_in_use_at_a_trim_is_returned_when_it_is_free() {
        return_unused_memory();
        let idle = resident();
        let blocks = || (0..40_000).map(|_| vec![1_u8; 4096]).collect::<Vec<_>>();
        let (first, mut second) = (blocks(), blocks());
        second.push(vec![1; 4096]);
        let last = vec![1_u8; 4096];
        let full = resident();
        drop(first);
        // A trim comes while the second half is in use; that it is free later must be noticed, too.
        let began = Instant::now();
        while resident() + (100 << 20) > full {
            assert!(began.elapsed() < Duration::from_secs(60), "{} of {full} are still resident", resident());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(second);
        while resident() > idle + (32 << 20) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{} are still resident; idle, {idle}",
                resident()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(last);
    }
}
