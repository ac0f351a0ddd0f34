//! `libtorch_cuda.so`, the half of libtorch that is not linked.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::DeviceError;

const CPU_HALF: &str = "libtorch_cpu.so";
const CUDA_HALF: &str = "libtorch_cuda.so";

/// Loads it, the first time that it is called: the one beside the CPU half if there is one, else whichever the loader finds
/// (`LD_LIBRARY_PATH`).
pub(super) fn load() -> Result<(), DeviceError> {
    static LOADED: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let beside = beside_the_cpu_half(&fs::read_to_string("/proc/self/maps").unwrap_or_default());
            let library = beside.as_deref().map_or(OsStr::new(CUDA_HALF), Path::as_os_str);
            open(library).map_err(DeviceError::Library)
        })
        .clone()
}

/// Where the CUDA half would be, if it is there. `maps` is the process' `/proc/self/maps`.
fn beside_the_cpu_half(maps: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let cpu_half = paths.into_iter().find(|path| path.file_name() == Some(OsStr::new(CPU_HALF)))?;
    Some(cpu_half.with_file_name(CUDA_HALF)).filter(|path| path.is_file())
}

#[expect(unsafe_code, reason = "a library that is loaded runs code of its own")]
fn open(library: &OsStr) -> Result<(), String> {
    // SAFETY: the initialisers of libtorch_cuda.so and of what it needs (CUDA's own libraries) expect nothing of the
    // process but the same release of libtorch_cpu.so; of another release some symbol is missing, and as all are bound
    // now, loading fails. Global, as libtorch loads further parts that look for its symbols.
    let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    // It has registered its kernels with the CPU half, so it has to stay.
    loaded.map(std::mem::forget).map_err(|error| super::driver::reason(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cuda_half_is_looked_for_beside_the_cpu_half() {
        let folder = tempfile::tempdir().unwrap();
        let cpu = folder.path().join(CPU_HALF);
        let maps = format!(
            "7f0000000000-7f0000001000 r--p 00000000 fe:00 12 /usr/lib/libc.so.6\n\
             7f0000001000-7f0000002000 rw-p 00000000 00:00 0\n\
             7f0000002000-7f0000003000 r-xp 00001000 fe:00 13 {}\n",
            cpu.display()
        );
        assert_eq!(beside_the_cpu_half(&maps), None);
        let cuda = folder.path().join(CUDA_HALF);
        fs::write(&cuda, "").unwrap();
        assert_eq!(beside_the_cpu_half(&maps), Some(cuda));
        assert_eq!(beside_the_cpu_half(""), None);
    }

    #[test]
    fn the_loader_s_reason_is_kept() {
        let refused = open(OsStr::new("libno-such-library.so")).unwrap_err();
        assert!(refused.contains("libno-such-library.so: cannot open shared object file"), "{refused}");
    }
}
