//! `--device`, as the program `muse-embedder` takes it, with no NVIDIA driver and with the stand-in of one.

use std::{
    env, fs,
    path::Path,
    process::{Command, Output},
};

use muse_model::device::{self, DeviceChoice, DeviceError};
use muse_test_support::Requirement;
use tch::Device;

/// Of the driver's functions those that are called: two cards, unless CARDS says another number.
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

/// Builds a library of this source where only `LD_LIBRARY_PATH` finds it.
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

/// What the program says as it ends at once with status 1, in one line.
fn refusal(device: &str, environment: &[(&str, &Path)]) -> String {
    let output = embedder(device, environment);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(output.stdout.is_empty());
    assert_eq!(said.lines().count(), 1, "{said}");
    said
}

fn there_is_a_driver() -> bool {
    let found = !matches!(device::resolve(DeviceChoice::Cuda(0)), Err(DeviceError::Driver(_)));
    if found {
        muse_test_support::skip(Requirement::NoNvidiaDriver, "there is one");
    }
    found
}

#[test]
fn without_a_driver_a_cuda_device_ends_the_program_before_it_listens() {
    if there_is_a_driver() {
        return;
    }
    for (device, name) in [("cuda", "cuda:0"), ("cuda:1", "cuda:1")] {
        let said = refusal(device, &[]);
        let reason = format!("--device {name}: there is no working NVIDIA driver: libcuda.so.1: cannot open");
        assert!(said.contains(&reason), "{said}");
    }
}

#[test]
fn what_is_missing_besides_the_driver_is_told() {
    if there_is_a_driver() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    build(folder.path(), "libcuda.so.1", DRIVER);
    let found = ("LD_LIBRARY_PATH", folder.path());
    let none = ("CARDS", Path::new("0"));

    let said = refusal("cuda:2", &[found]);
    assert!(said.contains("there is no cuda:2: 2 CUDA device(s) can be seen, counted from 0"), "{said}");
    let said = refusal("cuda", &[found, none, ("CUDA_VISIBLE_DEVICES", Path::new("7"))]);
    assert!(said.contains("there is no CUDA device to be seen (CUDA_VISIBLE_DEVICES is 7)"), "{said}");
    let said = refusal("cuda:1", &[found]);
    let reason = "--device cuda:1: libtorch's CUDA library cannot be loaded: libtorch_cuda.so: cannot open";
    assert!(said.contains(reason), "{said}");

    // Where nothing was asked for, the same is no error: the program goes on, to the model that is not there.
    let said = String::from_utf8(embedder("auto", &[found]).stderr).unwrap();
    assert!(said.contains("running on the CPU: libtorch's CUDA library cannot be loaded"), "{said}");
    assert!(said.contains("there-is-none"), "{said}");

    // A library that lacks something, and one that loads but brings no device.
    build(
        folder.path(),
        "libtorch_cuda.so",
        "extern int of_another_release(); int needs() { return of_another_release(); }",
    );
    let said = refusal("cuda", &[found]);
    assert!(
        said.contains("libtorch's CUDA library cannot be loaded:") && said.contains("undefined symbol"),
        "{said}"
    );
    build(folder.path(), "libtorch_cuda.so", "");
    let said = refusal("cuda", &[found]);
    assert!(said.contains("cuda:0 cannot be used: libtorch does not see it"), "{said}");
}

#[test]
fn the_driver_tells_what_a_card_is() {
    const AGAIN: &str = "MUSE_TEST_HAS_A_DRIVER";
    if env::var_os(AGAIN).is_some() {
        let card = device::card(Device::Cuda(1)).unwrap();
        assert_eq!((card.name.as_str(), card.capability), ("A Card", (9, 1)));
        assert!(card.driver.contains("CUDA 13.1"), "{card:?}");
        assert_eq!(device::card(Device::Cuda(2)), None);
        return;
    }
    if there_is_a_driver() {
        return;
    }
    // The loader reads LD_LIBRARY_PATH as a process starts, so this test is run in another.
    let folder = tempfile::tempdir().unwrap();
    build(folder.path(), "libcuda.so.1", DRIVER);
    let again = Command::new(env::current_exe().unwrap())
        .args(["--exact", "the_driver_tells_what_a_card_is"])
        .env(AGAIN, "1")
        .env("LD_LIBRARY_PATH", folder.path())
        .output()
        .unwrap();
    assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stdout));
}

#[test]
fn a_device_of_another_name_is_a_bad_option() {
    let output = embedder("gpu", &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("--device") && said.contains("must be auto, cpu, cuda or cuda:N"), "{said}");
}
