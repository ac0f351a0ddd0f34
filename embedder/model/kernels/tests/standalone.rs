//! The kernels without libtorch: with sanitizers on this processor, and in portable C++ on an emulated
//! ARM processor, which returns the same bits.

mod compiler;

use std::process::Command;

use compiler::{AVX512, NATIVE, SANITIZERS, compile, run, supports};
use muse_test_support::{Requirement, skip};

const ARM_COMPILER: &str = "aarch64-linux-gnu-g++";
const ARM_EMULATOR: &str = "qemu-aarch64";
/// What `check.cpp` prints on each processor.
const EXPECTED: &str = "bytes: f32 ea1b0302c2a69883, int8 5152d1d76d0717d8
floats: f32 b528b1105222500a, int8 5c9908d85f912eec
";
const AVX2: [&str; 2] = ["-mavx2", "-mfma"];
const AVX_VNNI: [&str; 3] = ["-mavx2", "-mfma", "-mavxvnni"];

#[test]
fn kernels_pass_the_sanitizers_and_return_the_same_bits() {
    if !cfg!(target_arch = "x86_64") {
        skip(Requirement::Avx2, "this processor is not x86-64");
        return;
    }
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let vnni = [&AVX512[..], &["-mavx512vnni"]].concat();
    let mut files: Vec<(&str, &[&str])> = vec![
        ("cpp/portable_f32.cpp", &["-mfma"]),
        ("cpp/portable_int8.cpp", &["-mfma"]),
        ("cpp/avx2_f32.cpp", &AVX2),
        ("cpp/avx2_int8.cpp", &AVX2),
        ("cpp/avx512_f32.cpp", &AVX512),
        ("cpp/avx512_vnni_int8.cpp", &vnni),
    ];
    // GCC supports AVX-VNNI since version 11.
    if supports("-mavxvnni") {
        files.push(("cpp/avx_vnni_int8.cpp", &AVX_VNNI));
        files.push(("tests/standalone/check.cpp", &["-DMUSE_X86_64", "-DMUSE_AVX_VNNI"]));
    } else {
        files.push(("tests/standalone/check.cpp", &["-DMUSE_X86_64"]));
    }
    let objects = files
        .into_iter()
        .map(|(file, flags)| compile(NATIVE, &[&["-O1"], &SANITIZERS[..], flags].concat(), file));
    let check = folder.path().join("check");
    run(Command::new(NATIVE).args(SANITIZERS).args(objects).arg("-o").arg(&check));
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
    let objects = files.map(|file| compile(ARM_COMPILER, &["-O3"], file));
    let check = folder.path().join("check");
    run(Command::new(ARM_COMPILER).arg("-static").args(objects).arg("-o").arg(&check));
    assert_eq!(run(Command::new(ARM_EMULATOR).arg(check)), EXPECTED);
}
