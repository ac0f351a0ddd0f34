//! `--device`, as the program `muse-embedder` takes it.

use std::process::{Command, Output};

fn embedder(device: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_muse-embedder"))
        .args(["--model-dir", "there-is-none", "--listen", "127.0.0.1:0", "--device", device])
        .env("LOG_FORMAT", "pretty")
        .env("LOG_LEVEL", "info")
        .output()
        .expect("the program was built")
}

#[test]
fn a_cuda_device_that_is_not_there_ends_the_program_before_it_listens() {
    // What there is on a machine with an NVIDIA driver, and on no other.
    if std::path::Path::new("/proc/driver/nvidia").exists() {
        println!("SKIPPED: there is an NVIDIA driver");
        return;
    }
    for device in ["cuda", "cuda:1"] {
        let output = embedder(device);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(output.stdout.is_empty());
        assert_eq!(said.lines().count(), 1, "{said}");
        let number = device.strip_prefix("cuda:").unwrap_or("0");
        let reason = format!("--device cuda:{number}: there is no working NVIDIA driver: libcuda.so.1: ");
        assert!(said.contains(&reason), "{said}");
    }
}

#[test]
fn a_device_of_another_name_is_a_bad_option() {
    let output = embedder("gpu");
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(64), "{said}");
    assert!(said.contains("--device") && said.contains("must be auto, cpu, cuda or cuda:N"), "{said}");
}
