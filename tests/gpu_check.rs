//! `make gpu-check` on the CPU: assembles the folder and executes its `run`.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use muse_model::device::{self, DeviceChoice, DeviceError};
use muse_tests::{root, running::built};

/// The ONNX export that `make onnx` downloads.
fn onnx() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| env::home_dir().map(|home| home.join(".cache"))).expect("there is a home");
    cache.join("muse/onnx/universal-sentence-encoder-multilingual-3-int8.onnx")
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("it can be run");
    let printed =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.code(), printed)
}

fn assembled(folder: &Path) -> PathBuf {
    let directory = folder.join("gpu-check");
    let (status, printed) = run(Command::new("python3")
        .arg(root().join("tests/bench/gpu_check/assemble.py"))
        .args([built().join("muse-gpu-check"), onnx(), directory.clone()]));
    assert_eq!(status, Some(0), "{printed}");
    directory
}

#[test]
fn gpu_check_folder_runs_on_the_cpu() {
    let folder = tempfile::tempdir().unwrap();
    let directory = assembled(folder.path());
    let bytes: u64 =
        fs::read_dir(&directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum();
    assert!(bytes <= 60 << 20, "{bytes}");

    // With another working directory, as on another machine.
    let check = |device: &str| {
        let mut command = Command::new(directory.join("run"));
        command.args(["--quick", "--device", device]).current_dir(folder.path());
        command.env("TORCH_LIB", root().join(".libtorch/site/torch/lib"));
        run(&mut command)
    };
    let (status, printed) = check("cpu");
    assert_eq!(status, Some(0), "{printed}");
    let report = fs::read_to_string(folder.path().join("gpu-check.md")).unwrap();
    for title in ["on this device", "Golden sentences", "Matrix products", "Forward pass", "Whole stack"] {
        assert!(report.contains(title), "no {title} in {report}");
    }
    for row in ["f32 ", "bf16", "f16 "] {
        let exact = report.lines().find(|line| line.starts_with(&format!("| {row}")));
        assert!(exact.is_some_and(|line| line.contains("passed")), "{row}: {report}");
    }

    if let Err(DeviceError::Driver(_)) = device::resolve(DeviceChoice::Cuda(0)) {
        let (status, printed) = check("cuda");
        assert_eq!(status, Some(1), "{printed}");
        assert!(printed.contains("--device cuda:0: there is no working NVIDIA driver"), "{printed}");
    }
}

#[test]
fn gpu_check_reports_a_missing_or_old_torch() {
    let folder = tempfile::tempdir().unwrap();
    let run_script = root().join("tests/bench/gpu_check/run");
    // -I and -S hide installed packages.
    let (status, printed) =
        run(Command::new("python3").args(["-I", "-S"]).arg(&run_script).env_remove("TORCH_LIB"));
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("has no torch"), "{printed}");
    let (status, printed) = run(Command::new(&run_script).env("TORCH_LIB", folder.path()));
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("there is no libtorch_cpu.so in"), "{printed}");
    fs::create_dir(folder.path().join("lib")).unwrap();
    fs::write(folder.path().join("lib/libtorch_cpu.so"), "").unwrap();
    fs::write(folder.path().join("build-version"), "2.10.0\n").unwrap();
    let (status, printed) = run(Command::new(&run_script).env("TORCH_LIB", folder.path().join("lib")));
    assert_eq!(status, Some(1), "{printed}");
    assert!(printed.contains("torch 2.11 is needed"), "{printed}");
}
