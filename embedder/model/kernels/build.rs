//! Compiles the kernels, each for its instruction set, and their interface to libtorch.

use std::{env, path::PathBuf};

const FMA: [&str; 1] = ["-mfma"];
const AVX2: [&str; 2] = ["-mavx2", "-mfma"];
/// libtorch's definition of AVX-512: every processor with AVX-512 has it, except the first Xeon
/// Phi.
const AVX512: [&str; 6] = ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma"];
const AMX: [&str; 4] = ["-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"];

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let path = |name| PathBuf::from(env::var_os(name).unwrap_or_default());
    let libtorch = path("LIBTORCH_INCLUDE").join("include");
    // For the tests of this package. The build script of muse-model reports a missing libtorch.
    if let Ok(libraries) = path("LIBTORCH").join("lib").canonicalize() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    }

    let x86_64 = env::var("CARGO_CFG_TARGET_ARCH").is_ok_and(|arch| arch == "x86_64");
    let mut interface = compiler();
    // libtorch's headers cause warnings.
    interface.include(&libtorch).file("cpp/kernels.cpp").warnings(false);
    let mut portable = kernels(if x86_64 { &FMA } else { &[] });
    portable.files(["cpp/portable_f32.cpp", "cpp/portable_int8.cpp"]).compile("muse_portable");
    if x86_64 {
        interface.define("MUSE_X86_64", None);
        kernels(&AVX2).files(["cpp/avx2_f32.cpp", "cpp/avx2_int8.cpp"]).compile("muse_avx2");
        kernels(&AVX512).file("cpp/avx512_f32.cpp").compile("muse_avx512");
        kernels(&AVX512).flag("-mavx512vnni").file("cpp/avx512_vnni_int8.cpp").compile("muse_avx512_vnni");
        // GCC supports AVX-VNNI and AMX since version 11.
        let mut avx_vnni = kernels(&AVX2);
        if avx_vnni.is_flag_supported("-mavxvnni").unwrap_or(false) {
            interface.define("MUSE_AVX_VNNI", None);
            avx_vnni.flag("-mavxvnni").file("cpp/avx_vnni_int8.cpp").compile("muse_avx_vnni");
        }
        let mut amx = kernels(&AVX512);
        if AMX.iter().all(|flag| amx.is_flag_supported(flag).unwrap_or(false)) {
            interface.define("MUSE_AMX", None);
            amx.flags(AMX).files(["cpp/amx_bf16.cpp", "cpp/amx_int8.cpp"]).compile("muse_amx");
        }
    }
    interface.compile("muse_kernels");
}

fn compiler() -> cc::Build {
    let mut compiler = cc::Build::new();
    compiler.cpp(true).std("c++17").opt_level(3);
    compiler
}

fn kernels(instructions: &[&str]) -> cc::Build {
    let mut kernels = compiler();
    // Without implicit fused multiply-adds, so that all kernels return the same bits.
    kernels.flag("-ffp-contract=off");
    // GCC warns about values that its own header leaves uninitialised on purpose.
    kernels.flags(instructions).flag_if_supported("-Wno-maybe-uninitialized").extra_warnings(true);
    kernels
}
