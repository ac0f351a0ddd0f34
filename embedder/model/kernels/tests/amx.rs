//! The AMX kernels without libtorch. On a CPU without AMX a handler of SIGILL executes the
//! instructions of AMX in software (`standalone/amx`), so that these kernels run on each CPU with
//! AVX-512.

mod compiler;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use compiler::{AVX512, NATIVE, SANITIZERS, compile, run, supports};
use muse_test_support::{Requirement, skip};

const EMULATION: [&str; 3] = ["instruction.cpp", "tiles.cpp", "emulation.cpp"];

/// Whether the C++ compiler and this CPU have all that the kernels need apart from AMX itself; reports
/// a skip if not.
fn can_run(needs_bf16: bool) -> bool {
    let missing =
        if supports("-mamx-int8") { missing_instructions(needs_bf16) } else { Some(Requirement::Amx) };
    if let Some(requirement) = missing {
        skip(requirement, "the compiler or this processor lacks instructions of the AMX kernels");
    }
    missing.is_none()
}

#[cfg(target_arch = "x86_64")]
fn missing_instructions(needs_bf16: bool) -> Option<Requirement> {
    let has_avx512 = is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl");
    if !has_avx512 {
        return Some(Requirement::Avx512);
    }
    (needs_bf16 && !is_x86_feature_detected!("avx512bf16")).then_some(Requirement::Avx512Bf16)
}

#[cfg(not(target_arch = "x86_64"))]
fn missing_instructions(_needs_bf16: bool) -> Option<Requirement> {
    Some(Requirement::Avx512)
}

/// Flags that compile with sanitizers.
fn sanitized() -> Vec<&'static str> {
    [&["-O1"], &SANITIZERS[..]].concat()
}

/// Compiles the emulation and files of `standalone/amx`.
fn compile_with_emulation(files: &[&str]) -> Vec<PathBuf> {
    let path = |file: &&str| format!("tests/standalone/amx/{file}");
    let mut objects: Vec<PathBuf> =
        (EMULATION.iter().chain(files)).map(|file| compile(NATIVE, &sanitized(), &path(file))).collect();
    // It accesses no memory of the kernels.
    objects.push(compile(NATIVE, &["-O3", "-mavx2", "-mfma"], &path(&"products.cpp")));
    objects
}

/// Links a program with the runtime of the sanitizers, and runs it.
fn link_and_run(objects: &[PathBuf], program: &Path) {
    run(Command::new(NATIVE).args(SANITIZERS).args(objects).arg("-o").arg(program));
    eprint!("{}", run(&mut Command::new(program)));
}

/// Runs a check of a kernel: once with sanitizers, which also detect tiles outside an array, and once
/// compiled as in the product.
fn check_kernel(kernel: &str, flags: &[&str], reference: &str, check: &str) {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let mut objects = compile_with_emulation(&["kernel_checks.cpp", check]);
    objects.push(compile(NATIVE, &["-O3", "-mfma"], reference));
    for level in [&sanitized()[..], &["-O3"]] {
        objects.push(compile(NATIVE, &[level, &AVX512, flags].concat(), kernel));
        link_and_run(&objects, &folder.path().join("check"));
        objects.pop();
    }
}

#[test]
fn tiles_multiply_as_computed_by_hand() {
    if can_run(false) {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let checks =
            ["check_emulation.cpp", "check_decoding.cpp", "check_execution.cpp", "check_products.cpp"];
        link_and_run(&compile_with_emulation(&checks), &folder.path().join("check"));
    }
}

#[test]
fn amx_int8_kernel_returns_the_bits_of_the_portable_one() {
    if can_run(false) {
        let flags = ["-mamx-tile", "-mamx-int8"];
        check_kernel("cpp/amx_int8.cpp", &flags, "cpp/portable_int8.cpp", "check_int8.cpp");
    }
}

#[test]
fn amx_bf16_kernel_agrees_with_the_float32_one() {
    if can_run(true) {
        let flags = ["-mavx512bf16", "-mamx-tile", "-mamx-bf16"];
        check_kernel("cpp/amx_bf16.cpp", &flags, "cpp/portable_f32.cpp", "check_bf16.cpp");
    }
}
