//! Compiles C++ files of this package into programs without libtorch.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::NamedTempFile;

/// The compiler for this processor.
pub(crate) const NATIVE: &str = "c++";
// -g1: lines without variables, which would take half of the compilation.
pub(crate) const SANITIZERS: [&str; 3] = ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
pub(crate) const AVX512: [&str; 6] =
    ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"];

/// Runs a command that must succeed; returns its output.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// Whether the compiler for this processor knows a flag.
pub(crate) fn supports(flag: &str) -> bool {
    let output = Command::new(NATIVE).args([flag, "-fsyntax-only", "-x", "c++", "/dev/null"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Compiles a file of this package with a compiler and flags; returns the object file. As in ccache,
/// it is that of an earlier run if the compiler, the flags and the preprocessed file are the same.
pub(crate) fn compile(compiler: &str, flags: &[&str], file: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let command = |step| {
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-ffp-contract=off", step]).args(flags).arg(&path);
        command
    };
    let mut hasher = DefaultHasher::new();
    let version = run(Command::new(compiler).arg("--version"));
    (compiler, flags, version, run(&mut command("-E"))).hash(&mut hasher);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("objects");
    let name = path.file_stem().expect("it has a name").to_string_lossy();
    let object = folder.join(format!("{name}-{:016x}.o", hasher.finish()));
    if !object.exists() {
        fs::create_dir_all(&folder).expect("the build folder is writable");
        // Tests in other threads and programs may compile the same file.
        let compiled = NamedTempFile::new_in(&folder).expect("the build folder is writable");
        run(command("-c").arg("-o").arg(compiled.path()));
        compiled.persist(&object).expect("the build folder is writable");
    }
    object
}
