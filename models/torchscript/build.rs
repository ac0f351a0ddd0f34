//! Compiles the part in C++.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    let path = |name| PathBuf::from(env::var_os(name).unwrap_or_default());
    // For the tests of this package. The build script of muse-model reports a missing libtorch.
    if let Ok(libraries) = path("LIBTORCH").join("lib").canonicalize() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", libraries.display());
    }
    let libtorch = path("LIBTORCH_INCLUDE").join("include");
    let mut module = cc::Build::new();
    module.cpp(true).std("c++17").opt_level(1).include(&libtorch);
    // libtorch's headers cause warnings.
    module.include(libtorch.join("torch/csrc/api/include")).file("cpp/module.cpp").warnings(false);
    module.compile("muse_torchscript");
}
