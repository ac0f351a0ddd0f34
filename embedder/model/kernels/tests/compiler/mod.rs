//! Compiles C++ files of this package into programs without libtorch.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

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

/// Compiles a file of this package with a compiler and flags; returns the object file.
pub(crate) fn compile(compiler: &str, flags: &[&str], file: &str, folder: &Path) -> PathBuf {
    let object = folder.join(Path::new(file).file_name().expect("it has a name")).with_extension("o");
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-ffp-contract=off", "-c"]).args(flags);
    run(command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).arg("-o").arg(&object));
    object
}
