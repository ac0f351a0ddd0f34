//! What is in deploy/: the tests in tests/deploy, run by the Python environment that `make test` makes for them.

use std::{env, path::Path};

use muse_tests::pytest::pytest;

fn made_by_make(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

#[tokio::test]
async fn deployment_files_match_the_programs() {
    let python = Path::new(&made_by_make("DEPLOY_VENV")).join("bin/python");
    pytest(&python, &["tests/deploy"], &[("KUBECTL", &made_by_make("KUBECTL"))]).await;
}
