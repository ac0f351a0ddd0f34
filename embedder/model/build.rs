//! Lets the programs and tests of this package find libtorch with no variable exported: where `make
//! install` put it, or else where `make libtorch` did.

use std::{env, fs, path::Path};

fn main() {
    println!("cargo::rerun-if-env-changed=LIBTORCH");
    let libraries = Path::new(&env::var_os("LIBTORCH").unwrap_or_default()).join("lib");
    println!("cargo::rerun-if-changed={}", libraries.join("libtorch_cpu.so").display());
    println!("cargo::rustc-link-arg=-Wl,-rpath,$ORIGIN/../lib/muse");
    match fs::canonicalize(&libraries) {
        Ok(found) => println!("cargo::rustc-link-arg=-Wl,-rpath,{}", found.display()),
        Err(_) => {
            println!("cargo::error=there is no libtorch at {}: run `make libtorch`", libraries.display());
        }
    }
}
