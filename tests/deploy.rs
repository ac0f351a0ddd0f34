//! Runs the tests in tests/deploy with the Python environment that `make test` creates.

use std::{env, path::Path};

use muse_tests::pytest::pytest;

fn variable_of_make(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test`"))
}

#[tokio::test]
async fn deployment_files_match_the_programs() {
    let python = Path::new(&variable_of_make("DEPLOY_VENV")).join("bin/python");
    pytest(&python, &["tests/deploy"], &[("KUBECTL", &variable_of_make("KUBECTL"))]).await;
}
