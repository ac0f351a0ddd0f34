//! Memory cgroups, versions 1 and 2.

use std::{fs, io, path::PathBuf, process, thread, time::Duration};

/// A memory cgroup with a limit. Dropping it removes the cgroup.
#[derive(Debug)]
pub struct Cgroup {
    folder: PathBuf,
    v2: bool,
}

impl Cgroup {
    /// Creates a cgroup below that of this process, with a limit in bytes.
    ///
    /// # Errors
    ///
    /// If the cgroup cannot be created, usually for lack of permission.
    pub fn new(name: &str, limit: u64) -> io::Result<Self> {
        let own = fs::read_to_string("/proc/self/cgroup")?;
        let v1 = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|controller| controller == "memory").then_some(path)
        });
        let unified = || own.lines().find_map(|line| line.strip_prefix("0::"));
        let (parent, v2) = match (v1, unified()) {
            (Some(path), _) => (PathBuf::from(format!("/sys/fs/cgroup/memory{path}")), false),
            (None, Some(path)) => (PathBuf::from(format!("/sys/fs/cgroup{path}")), true),
            (None, None) => return Err(io::Error::other("this kernel has no memory cgroups")),
        };
        let folder = parent.join(format!("muse-{name}-{}", process::id()));
        fs::create_dir(&folder)?;
        let cgroup = Self { folder, v2 };
        let file = if v2 { "memory.max" } else { "memory.limit_in_bytes" };
        fs::write(cgroup.folder.join(file), limit.to_string())?;
        if v2 {
            // Without swap, so that the limit applies to all memory.
            let _ = fs::write(cgroup.folder.join("memory.swap.max"), "0");
        }
        Ok(cgroup)
    }

    /// The file to which the ids of processes are written.
    #[must_use]
    pub fn processes(&self) -> PathBuf {
        self.folder.join("cgroup.procs")
    }

    /// The number of OOM kills.
    ///
    /// # Errors
    ///
    /// If the kernel does not report it.
    pub fn oom_kills(&self) -> io::Result<u64> {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folder.join(file))?;
        let kills = text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        kills.ok_or_else(|| io::Error::other("the kernel does not count OOM kills"))
    }

    /// The peak memory usage in bytes, including the page cache.
    ///
    /// # Errors
    ///
    /// If the kernel does not report it.
    pub fn peak(&self) -> io::Result<u64> {
        let file = if self.v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        let text = fs::read_to_string(self.folder.join(file))?;
        text.trim().parse().map_err(io::Error::other)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The kernel removes killed processes with a delay.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}
