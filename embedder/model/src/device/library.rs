//! `libtorch_cuda.so`, the CUDA part of libtorch, which the programs are not linked with.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::DeviceError;

const CPU_LIBRARY: &str = "libtorch_cpu.so";
const CUDA_LIBRARY: &str = "libtorch_cuda.so";

/// Loads it, at the first call: from the folder of the CPU library, or else from where the loader
/// finds it (`LD_LIBRARY_PATH`).
pub(super) fn load() -> Result<(), DeviceError> {
    static LOADED: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    LOADED
        .get_or_init(|| {
            let beside = beside_cpu_library(&fs::read_to_string("/proc/self/maps").unwrap_or_default());
            let library = beside.as_deref().map_or(OsStr::new(CUDA_LIBRARY), Path::as_os_str);
            open(library).map_err(DeviceError::Library)
        })
        .clone()
}

/// The path of the CUDA library in the folder of the CPU library, if it is there. `maps` are the
/// contents of `/proc/self/maps`.
fn beside_cpu_library(maps: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let cpu_library = paths.into_iter().find(|path| path.file_name() == Some(OsStr::new(CPU_LIBRARY)))?;
    Some(cpu_library.with_file_name(CUDA_LIBRARY)).filter(|path| path.is_file())
}

#[expect(unsafe_code, reason = "loading a library runs its initialisers")]
fn open(library: &OsStr) -> Result<(), String> {
    // SAFETY: the initialisers of libtorch_cuda.so and of the libraries of CUDA only require the
    // same release of libtorch_cpu.so; in another release a symbol is missing, and loading fails,
    // as all symbols are bound now. Global, as libtorch loads further parts that use its symbols.
    let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
    // Never unloaded, since its kernels are registered with the CPU library.
    loaded.map(std::mem::forget).map_err(|error| super::driver::reason(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuda_library_is_searched_beside_the_cpu_library() {
        let folder = tempfile::tempdir().unwrap();
        let cpu = folder.path().join(CPU_LIBRARY);
        let maps = format!(
            "7f0000000000-7f0000001000 r--p 00000000 fe:00 12 /usr/lib/libc.so.6\n\
             7f0000001000-7f0000002000 rw-p 00000000 00:00 0\n\
             7f0000002000-7f0000003000 r-xp 00001000 fe:00 13 {}\n",
            cpu.display()
        );
        assert_eq!(beside_cpu_library(&maps), None);
        let cuda = folder.path().join(CUDA_LIBRARY);
        fs::write(&cuda, "").unwrap();
        assert_eq!(beside_cpu_library(&maps), Some(cuda));
        assert_eq!(beside_cpu_library(""), None);
    }

    #[test]
    fn load_error_contains_the_loader_message() {
        let error = open(OsStr::new("libno-such-library.so")).unwrap_err();
        assert!(error.contains("libno-such-library.so: cannot open shared object file"), "{error}");
    }
}
