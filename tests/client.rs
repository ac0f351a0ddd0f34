//! Runs the tests of the Python client with the installed wheel (`make client`) against real
//! stacks.

use std::panic::AssertUnwindSafe;

use futures::{FutureExt, future::join_all};
use muse_tests::{Stack, pytest::pytest, root};

/// Files of tests, in groups that take about as long. All others are a group of their own.
const GROUPS: [&[&str]; 3] = [
    &["command", "readme", "progress", "job_login"],
    &["bulk", "outputs", "file_safety"],
    &["resumption", "keys", "usage", "login"],
];

/// The groups run at the same time, because their tests wait most of the time.
#[tokio::test(flavor = "multi_thread")]
async fn installed_package_and_command_pass_their_tests() {
    let python = root().join("target/client/bin/python");
    assert!(python.exists(), "the client is not installed: run `make client`");
    let file = |name: &&str| format!("client/tests/test_{name}.py");
    let mut groups: Vec<Vec<String>> = GROUPS.map(|names| names.iter().map(file).collect()).into();
    let others = groups.iter().flatten().map(|path| format!("--ignore={path}"));
    groups.push(["client/tests".to_owned()].into_iter().chain(others).collect());

    let (stack, strict) = (Stack::start().await, Stack::start_strict().await);
    let [url, strict_url] = [&stack, &strict].map(|stack| format!("http://{}", stack.gateway.address));
    let urls = [("MUSE_TEST_URL", &*url), ("MUSE_TEST_STRICT_URL", &*strict_url)];
    let running = groups.iter().map(|group| {
        let tests = async {
            let arguments: Vec<&str> = group.iter().map(String::as_str).collect();
            pytest(&python, &arguments, &urls).await;
        };
        // The other groups go on after a failure.
        AssertUnwindSafe(tests).catch_unwind()
    });
    let results = join_all(running).await;
    assert!(results.iter().all(Result::is_ok), "tests of the client failed");
}
