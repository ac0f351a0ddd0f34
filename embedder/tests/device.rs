//! The option `--device` of the program `muse-embedder`, without an NVIDIA driver and with a fake
//! one.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use muse_model::device::{self, DeviceChoice, DeviceError};
use muse_test_support::Requirement;
use tch::Device;

/// A fake driver with the functions that are called. It has two cards, or the number in CARDS.
const DRIVER: &str = r#"
#include <cstdlib>
#include <cstring>
static int cards() { const char *text = std::getenv("CARDS"); return text ? std::atoi(text) : 2; }
extern "C" {
int cuInit(unsigned) { return cards() ? 0 : 100; }
int cuDeviceGetCount(int *count) { *count = cards(); return cards() ? 0 : 100; }
int cuDeviceGet(int *device, int index) { *device = 70 + index; return index < cards() ? 0 : 101; }
int cuDeviceGetName(char *name, int length, int device) {
    if (device < 70 || length < 16) return 1;
    std::strcpy(name, "A Card");
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    if (device < 70) return 1;
    *value = attribute == 75 ? 9 : attribute == 76 ? 1 : -1;
    return 0;
}
int cuDriverGetVersion(int *version) { *version = 13010; return 0; }
}
"#;

/// Builds a library from a source, in a folder that is only in `LD_LIBRARY_PATH`.
fn build(folder: &Path, name: &str, source: &str) {
    let file = folder.join("source.cc");
    fs::write(&file, source).expect("the folder is the test's own");
    let mut compiler = Command::new("c++");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(folder.join(name)).arg(&file);
    assert!(compiler.status().expect("there is a C++ compiler").success());
}

fn embedder(device: &str, environment: &[(&str, &Path)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muse-embedder"))
        .args(["--model-dir", "there-is-none", "--listen", "127.0.0.1:0", "--device", device])
        .env("EMBEDDER_PRIVATE_LISTEN", "127.0.0.1:0")
        .env("LOG_FORMAT", "pretty")
        .env("LOG_LEVEL", "info")
        .envs(environment.iter().copied())
        .output()
        .expect("the program was built")
}

/// The error, in one line, with which the program exits with status 1.
fn error_line(device: &str, environment: &[(&str, &Path)]) -> String {
    let output = embedder(device, environment);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(output.stdout.is_empty());
    assert_eq!(error.lines().count(), 1, "{error}");
    error
}

fn has_driver() -> bool {
    let found = !matches!(device::resolve(DeviceChoice::Cuda(0)), Err(DeviceError::Driver(_)));
    if found {
        muse_test_support::skip(Requirement::NoNvidiaDriver, "there is one");
    }
    found
}

#[test]
fn cuda_without_a_driver_ends_the_program_before_it_listens() {
    if has_driver() {
        return;
    }
    for (device, name) in [("cuda", "cuda:0"), ("cuda:1", "cuda:1")] {
        let error = error_line(device, &[]);
        let reason = format!("--device {name}: there is no working NVIDIA driver: libcuda.so.1: cannot open");
        assert!(error.contains(&reason), "{error}");
    }
}

#[test]
fn missing_parts_besides_the_driver_are_named() {
    if has_driver() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    build(folder.path(), "libcuda.so.1", DRIVER);
    let found = ("LD_LIBRARY_PATH", folder.path());
    let none = ("CARDS", Path::new("0"));

    let error = error_line("cuda:2", &[found]);
    assert!(error.contains("there is no cuda:2: 2 CUDA device(s) can be seen, counted from 0"), "{error}");
    let error = error_line("cuda", &[found, none, ("CUDA_VISIBLE_DEVICES", Path::new("7"))]);
    assert!(error.contains("there is no CUDA device to be seen (CUDA_VISIBLE_DEVICES is 7)"), "{error}");
    let error = error_line("cuda:1", &[found]);
    let reason = "--device cuda:1: libtorch's CUDA library cannot be loaded: libtorch_cuda.so: cannot open";
    assert!(error.contains(reason), "{error}");

    // Without a requested device this is no error: the program continues to the missing model.
    let error = String::from_utf8(embedder("auto", &[found]).stderr).unwrap();
    assert!(error.contains("running on the CPU: libtorch's CUDA library cannot be loaded"), "{error}");
    assert!(error.contains("there-is-none"), "{error}");

    // A library that lacks a symbol, and one that loads but registers no device.
    build(
        folder.path(),
        "libtorch_cuda.so",
        "extern int of_another_release(); int needs() { return of_another_release(); }",
    );
    let error = error_line("cuda", &[found]);
    assert!(
        error.contains("libtorch's CUDA library cannot be loaded:") && error.contains("undefined symbol"),
        "{error}"
    );
    build(folder.path(), "libtorch_cuda.so", "");
    let error = error_line("cuda", &[found]);
    assert!(error.contains("cuda:0 cannot be used: libtorch does not see it"), "{error}");
}

#[test]
fn driver_describes_a_card() {
    const CHILD: &str = "MUSE_TEST_HAS_A_DRIVER";
    if env::var_os(CHILD).is_some() {
        let card = device::card(Device::Cuda(1)).unwrap();
        assert_eq!((card.name.as_str(), card.capability), ("A Card", (9, 1)));
        assert!(card.driver.contains("CUDA 13.1"), "{card:?}");
        assert_eq!(device::card(Device::Cuda(2)), None);
        return;
    }
    if has_driver() {
        return;
    }
    // The loader reads LD_LIBRARY_PATH at the start of a process, so this test runs in another one.
    let folder = tempfile::tempdir().unwrap();
    build(folder.path(), "libcuda.so.1", DRIVER);
    let child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "driver_describes_a_card"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}

#[test]
fn unknown_device_name_is_an_invalid_option() {
    let output = embedder("gpu", &[]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{error}");
    assert!(error.contains("--device") && error.contains("must be auto, cpu, cuda or cuda:N"), "{error}");
}
