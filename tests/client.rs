//! Runs the tests of the Python client with the installed wheel (`make client`) against real
//! stacks.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures::{FutureExt, future::join_all};
use muse_auth::RefreshRotation;
use muse_tests::{
    Stack, auth_config, channel, model_dir, pytest::pytest, root, start_auth, start_embedder, start_gateway,
    wait_until_serving,
};

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

    let (stack, strict) = (Stack::start().await, strict_stack().await);
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

/// A stack with access tokens that are valid for 2 s, rotating refresh tokens, and a short queue.
async fn strict_stack() -> Stack {
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let mut config = auth_config(data.path());
    config.access_token_lifetime = Duration::from_secs(2);
    config.refresh_rotation = Some(RefreshRotation { grace: Duration::from_secs(1) });
    let auth = start_auth(config).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--queue-tokens", "4000"]).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    wait_until_serving(channel(gateway.address)).await;
    Stack { data, auth, embedder, gateway }
}
