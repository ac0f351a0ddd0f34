//! The kernels without libtorch: with sanitizers on this processor, and in portable C++ on an emulated
//! ARM processor, which returns the same bits.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use muse_test_support::{Requirement, skip};

const ARM_COMPILER: &str = "aarch64-linux-gnu-g++";
const ARM_EMULATOR: &str = "qemu-aarch64";
/// What `check.cpp` prints on each processor.
const EXPECTED: &str = "bytes: f32 ea1b0302c2a69883, int8 5152d1d76d0717d8
floats: f32 b528b1105222500a, int8 5c9908d85f912eec
";
// -g1: lines without variables, which would take half of the compilation.
const SANITIZERS: [&str; 3] = ["-g1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"];
const AVX2: [&str; 2] = ["-mavx2", "-mfma"];
const AVX512: [&str; 6] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"];

fn source(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(file)
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).expect("it prints text")
}

/// Compiles a file with a compiler and flags; returns the object file.
fn compile(compiler: &str, flags: &[&str], file: &str, folder: &Path) -> PathBuf {
    let object = folder.join(Path::new(file).file_name().expect("it has a name")).with_extension("o");
    let mut command = Command::new(compiler);
    command.args(["-std=c++17", "-ffp-contract=off", "-c"]).args(flags);
    run(command.arg(source(file)).arg("-o").arg(&object));
    object
}

#[test]
fn kernels_pass_the_sanitizers_and_return_the_same_bits() {
    if !cfg!(target_arch = "x86_64") {
        skip(Requirement::Avx2, "this processor is not x86-64");
        return;
    }
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let vnni = [&AVX512[..], &["-mavx512vnni"]].concat();
    let files: [(&str, &[&str]); 7] = [
        ("cpp/portable_f32.cpp", &["-mfma"]),
        ("cpp/portable_int8.cpp", &["-mfma"]),
        ("cpp/avx2_f32.cpp", &AVX2),
        ("cpp/avx2_int8.cpp", &AVX2),
        ("cpp/avx512_f32.cpp", &AVX512),
        ("cpp/avx512_vnni_int8.cpp", &vnni),
        ("tests/standalone/check.cpp", &["-DMUSE_X86_64"]),
    ];
    let objects = files.map(|(file, flags)| {
        compile("c++", &[&["-O1"], &SANITIZERS[..], flags].concat(), file, folder.path())
    });
    let check = folder.path().join("check");
    run(Command::new("c++").args(SANITIZERS).args(objects).arg("-o").arg(&check));
    assert_eq!(run(&mut Command::new(check)), EXPECTED);
}

#[test]
fn portable_kernels_return_the_same_bits_on_arm() {
    let exists = |program| Command::new(program).arg("--version").output().is_ok();
    if !exists(ARM_COMPILER) || !exists(ARM_EMULATOR) {
        skip(Requirement::Arm, format_args!("{ARM_COMPILER} or {ARM_EMULATOR} is not installed"));
        return;
    }
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let files = ["cpp/portable_f32.cpp", "cpp/portable_int8.cpp", "tests/standalone/check.cpp"];
    let objects = files.map(|file| compile(ARM_COMPILER, &["-O3"], file, folder.path()));
    let check = folder.path().join("check");
    run(Command::new(ARM_COMPILER).arg("-static").args(objects).arg("-o").arg(&check));
    assert_eq!(run(Command::new(ARM_EMULATOR).arg(check)), EXPECTED);
}
