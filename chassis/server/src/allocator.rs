//! Settings of glibc's allocator: how much free memory its arenas retain, and when free memory is
//! returned to the kernel. On other C libraries these functions have no effect.

/// Upper limit of `bytes` in [`configure_allocator`]: the maximum that glibc accepts for
/// M_MMAP_THRESHOLD.
pub const MAX_RETAINED_BYTES: usize = 32 << 20;

/// Lets each arena retain up to `bytes` (at most [`MAX_RETAINED_BYTES`]) of free memory; larger
/// blocks are returned to the kernel as soon as they are free. For memory that will be reused soon:
/// by default the allocator returns most of it to the kernel, which then clears it page by page for
/// the next use.
///
/// Limits the number of arenas to `threads`, the threads that use much memory, and two for all
/// others, so that no further arena retains memory.
pub fn configure_allocator(threads: usize, bytes: usize) {
    #[cfg(target_env = "gnu")]
    {
        let arenas = i32::try_from(threads).unwrap_or(i32::MAX).saturating_add(2);
        let bytes = i32::try_from(bytes.min(MAX_RETAINED_BYTES)).unwrap_or(i32::MAX);
        set(libc::M_MMAP_THRESHOLD, bytes);
        set(libc::M_TRIM_THRESHOLD, bytes);
        set(libc::M_TOP_PAD, 1 << 20);
        set(libc::M_ARENA_MAX, arenas);
    }
}

/// Returns blocks of at least one megabyte to the kernel as soon as they are free. By default
/// glibc's thresholds are dynamic: after the first free block of 16 MB each arena retains up to 32
/// MB at its top, which no trim returns.
pub fn return_large_blocks() {
    #[cfg(target_env = "gnu")]
    {
        set(libc::M_MMAP_THRESHOLD, 1 << 20);
        set(libc::M_TRIM_THRESHOLD, 1 << 20);
    }
}

/// Returns free memory to the kernel, for example after a model was loaded.
pub fn trim() {
    #[cfg(target_env = "gnu")]
    {
        #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
        // SAFETY: malloc_trim may be called at any time and takes locks of its own.
        let _ = unsafe { libc::malloc_trim(0) };
    }
}

/// Starts a thread, once per process, that returns free memory to the kernel if much of it was free
/// at two consecutive checks: after a burst of large requests, and not between the requests of a
/// burst. glibc itself returns only memory at the top of an arena, and retains everything below the
/// last block in use.
pub fn return_unused_memory() {
    #[cfg(target_env = "gnu")]
    {
        static STARTED: std::sync::Once = std::sync::Once::new();
        STARTED.call_once(|| {
            let thread = std::thread::Builder::new().name("muse-trim".to_owned()).spawn(trim_periodically);
            if let Err(failure) = thread {
                tracing::warn!(%failure, "cannot start the thread that returns unused memory");
            }
        });
    }
}

/// The thread of [`return_unused_memory`]. It runs at normal priority, because it must not wait for
/// a core while it owns the locks of the arenas.
#[cfg(target_env = "gnu")]
fn trim_periodically() {
    /// Minimum of free memory for a trim. Page faults for as much take about a millisecond.
    const TRIM_THRESHOLD: usize = 4 << 20;
    const INTERVAL: std::time::Duration =
        std::time::Duration::from_millis(if cfg!(test) { 200 } else { 5_000 });

    let (mut previous, mut untrimmable) = (0, 0);
    loop {
        std::thread::sleep(INTERVAL);
        let unused = free_resident().saturating_sub(untrimmable);
        if unused.min(previous) < TRIM_THRESHOLD {
            previous = unused;
            continue;
        }
        trim();
        // A trim does not return stacks and partly used pages. The resident memory would not do as
        // a baseline: in a burst much of it is in use now and free at the next check.
        (previous, untrimmable) = (0, free_resident());
        tracing::debug!(unused, untrimmable, "returned unused memory");
    }
}

/// Resident anonymous bytes of the process that the allocator has not handed out. The allocator's
/// own count of free bytes includes memory that was returned to the kernel.
#[cfg(target_env = "gnu")]
fn free_resident() -> usize {
    #[expect(unsafe_code, reason = "the C library's allocator has no safe interface")]
    // SAFETY: mallinfo2 may be called at any time and takes locks of its own.
    let arenas = unsafe { libc::mallinfo2() };
    resident().saturating_sub(arenas.uordblks + arenas.hblkhd)
}

/// Resident anonymous bytes of the process; 0 if `/proc` cannot be read.
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
    // SAFETY: mallopt may be called at any time, takes a lock of its own, and takes only numbers.
    let set = unsafe { libc::mallopt(parameter, value) };
    if set == 0 {
        tracing::debug!(parameter, value, "the allocator rejected a setting");
    }
}

#[cfg(all(test, target_env = "gnu"))]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn freed_memory_below_a_used_block_is_returned() {
        return_unused_memory();
        // Blocks of one arena with a used block above them: glibc alone returns none of them.
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
        // The first trim runs while the second half is in use; a later one must return that half.
        let began = Instant::now();
        while resident() + (100 << 20) > full {
            assert!(began.elapsed() < Duration::from_secs(60), "{} of {full} are still resident", resident());
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(second);
        while resident() > idle + (32 << 20) {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "{} are still resident; {idle} before",
                resident()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        drop(last);
    }
}
