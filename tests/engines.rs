//! The recipes of docs/api/data-engines.md, with the real engines on this machine.

use std::process::Command;

use muse_tests::{root, run_with_key, venv_program};

#[tokio::test(flavor = "multi_thread")]
async fn recipes_of_the_data_engines_page_work() {
    // The packages of the client's own environment are only the client and pip.
    let python = root().join("target/client/bin/python");
    let site = Command::new(python).args(["-c", "import site; print(site.getsitepackages()[0])"]).output();
    let site = String::from_utf8(site.expect("the client is installed: run `make client`").stdout);
    let site = site.expect("the path is UTF-8");
    let mut recipes = venv_program("ENGINES_VENV", "python");
    run_with_key(recipes.arg("tests/python/engines/run.py").env("PYTHONPATH", site.trim())).await;
}
