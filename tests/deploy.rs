//! What is in deploy/: the tests in tests/deploy, run by the Python environment that `make test` makes for them.

use std::{env, ffi::OsString, path::Path, process::Stdio, time::Duration};

use muse_tests::root;
use tokio::process::Command;

/// Longer than they take.
const PATIENCE: Duration = Duration::from_secs(600);

fn made_by_make(name: &str) -> OsString {
    env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `make test`"))
}

#[tokio::test]
async fn what_is_deployed_is_what_the_programs_are() {
    let tests = Command::new(Path::new(&made_by_make("DEPLOY_VENV")).join("bin/pytest"))
        .args(["--color=no", "-p", "no:cacheprovider", "-rs", "tests/deploy"])
        .current_dir(root())
        .env("KUBECTL", made_by_make("KUBECTL"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output =
        tokio::time::timeout(PATIENCE, tests).await.expect("they end in time").expect("pytest starts");
    println!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pytest ended with {}", output.status);
}
