//! Runs `make run`, the commands of the README and of the manual, a shutdown, and a restart.
//!
//! The commands are the `sh` blocks of the README and of the pages that `docs/SUMMARY.md` links. A
//! `text` block after a command is the expected output, in which `…` matches anything.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use muse_tests::{TIMEOUT, http_client::HttpClient, root};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// `make run` with its own port and database.
struct MakeRun {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl MakeRun {
    async fn start(database: &Path, port: u16, admin_port: SocketAddr) -> Self {
        let mut command = Command::new("make");
        command.arg("run").current_dir(root()).env("PORT", port.to_string()).env("DATABASE_URL", database);
        command.env("GATEWAY_PRIVATE_LISTEN", admin_port.to_string());
        // Without the variables that cargo, make and coverage set for the tests.
        let preserved = ["CARGO_HOME", "RUSTUP_HOME"];
        let leaking = ["CARGO", "OUT_DIR", "RUST", "LIBTORCH", "LLVM", "MAKE", "MFLAGS"];
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if leaking.iter().any(|prefix| name.starts_with(prefix)) && !preserved.contains(&name.as_str()) {
                command.env_remove(name);
            }
        }
        let mut process = command.stdout(Stdio::piped()).process_group(0).spawn().expect("make starts");
        let output = BufReader::new(process.stdout.take().expect("it is piped")).lines();
        let mut started = Self { process, output, port };
        started.wait_for("ready after").await;
        started
    }

    async fn wait_for(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.output.next_line().await.expect("it prints text") {
                println!("make run: {line}");
                if line.contains(text) {
                    return line;
                }
            }
            panic!("make run ended without printing {text:?}");
        };
        tokio::time::timeout(TIMEOUT * 10, found).await.expect("it prints the text in time")
    }

    /// Sends a signal, like Ctrl-C or `kill`, and waits until all processes have exited.
    async fn stop(mut self, signal: &str) {
        let children = children(self.process.id().expect("it runs"));
        let launcher = children.first().expect("make runs the launcher");
        let services = self::children(*launcher);
        assert_eq!(services.len(), 3, "auth, embedder and gateway");
        assert!(kill(signal, *launcher));
        self.wait_for("stopped").await;
        let status =
            tokio::time::timeout(TIMEOUT, self.process.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
        for service in services {
            assert!(!Path::new(&format!("/proc/{service}")).exists(), "{service} still runs");
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("the port is free again");
    }
}

/// Stops the processes of a failed test.
impl Drop for MakeRun {
    fn drop(&mut self) {
        // None after `wait`.
        if let Some(make) = self.process.id() {
            let group = format!("-{make}");
            let _ = std::process::Command::new("kill").args(["-TERM", "--", &group]).status();
        }
    }
}

fn children(parent: u32) -> Vec<u32> {
    let listed = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    listed.split_whitespace().filter_map(|id| id.parse().ok()).collect()
}

fn kill(signal: &str, process: u32) -> bool {
    let status = std::process::Command::new("kill").args([signal, &process.to_string()]).status();
    status.expect("kill is there").success()
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it has an address").port()
}

/// Runs `muse-gateway healthcheck` for that admin port. Returns the exit status and standard error.
async fn healthcheck(admin_port: SocketAddr) -> (Option<i32>, String) {
    let mut command = Command::new(root().join("target/release/muse-gateway"));
    command.arg("healthcheck").env("GATEWAY_PRIVATE_LISTEN", admin_port.to_string());
    let output = tokio::time::timeout(TIMEOUT, command.output()).await.expect("it ends").expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The README and the pages that `docs/SUMMARY.md` links, in its order.
fn documents() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect(path);
    let summary = read("docs/SUMMARY.md");
    let links = summary.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let pages = links.map(|(page, _)| read(&format!("docs/{page}")));
    std::iter::once(read("README.md")).chain(pages).collect()
}

/// The commands of the documents that need a running stack, and their expected output.
fn documented_commands() -> Vec<(String, Option<String>)> {
    let mut commands = Vec::new();
    for document in documents() {
        let mut blocks = Vec::new();
        let mut rest = document.as_str();
        while let Some((_, after)) = rest.split_once("```") {
            let (block, after) = after.split_once("```").expect("each block is closed");
            blocks.push(block.split_once('\n').expect("a language, then lines"));
            rest = after;
        }
        for (index, (language, text)) in blocks.iter().enumerate() {
            if *language == "sh" && text.contains("localhost:5000") {
                let next = blocks.get(index + 1).filter(|(language, _)| *language == "text");
                commands.push(((*text).to_owned(), next.map(|(_, text)| (*text).trim().to_owned())));
            }
        }
    }
    commands
}

/// Whether `printed` contains the parts of `expected` between the ellipses, in order.
fn prints(printed: &str, expected: &str) -> bool {
    let mut rest = printed;
    expected.split('…').map(str::trim).all(|part| match rest.split_once(part) {
        Some((_, after)) => {
            rest = after;
            true
        }
        None => false,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn documented_commands_work_and_their_effects_are_persistent() {
    let data = tempfile::tempdir().unwrap();
    let database = data.path().join("muse.db");
    let port = free_port();
    let admin_port = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let stack = MakeRun::start(&database, port, admin_port).await;
    assert_eq!(healthcheck(admin_port).await, (Some(0), String::new()));

    let commands = documented_commands();
    let count = |tool: &str| commands.iter().filter(|(command, _)| command.contains(tool)).count();
    assert!(count("curl ") >= 3 && count("grpcurl ") >= 3, "the documents show {} commands", commands.len());
    // One shell, because later commands use variables of earlier ones. Without pipefail, because
    // `head` may exit before the command in front of it.
    let mut script = "set -eu\n".to_owned();
    for (command, _) in &commands {
        script += &command.replace("localhost:5000", &format!("localhost:{port}"));
        script += "\necho '=== end of block'\n";
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let substitutes = root().join("tests/python");
    let ran = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root())
        .env("PATH", format!("{path}:{}", substitutes.display()))
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}\n{printed}\n{errors}", ran.status);
    for ((command, expected), output) in commands.iter().zip(printed.split("=== end of block")) {
        if let Some(expected) = expected {
            assert!(prints(output, expected), "{command}\nshould print\n{expected}\nand printed\n{output}");
        }
    }

    // Add a user with the program, revoke a token, and restart.
    let mut add = Command::new(root().join("target/release/muse-auth"));
    add.args(["user", "add", "maria", "--database"]).arg(&database).stdin(Stdio::piped());
    let mut adding = add.spawn().expect("muse-auth is built");
    let mut input = adding.stdin.take().expect("it is piped");
    tokio::io::AsyncWriteExt::write_all(&mut input, b"correct horse\n").await.unwrap();
    drop(input);
    assert!(adding.wait().await.unwrap().success());
    let http = HttpClient::new((Ipv4Addr::LOCALHOST, port).into());
    let valid = login(&http, "maria", "correct horse").await;
    let revoked = login(&http, "maria", "correct horse").await;
    assert_eq!(http.post("/logout/access", &revoked).await.status, 200);
    stack.stop("-INT").await;

    let started = Instant::now();
    let stack = MakeRun::start(&database, port, admin_port).await;
    let seconds = started.elapsed();
    println!("started again in {seconds:?}");
    assert!(seconds < Duration::from_secs(30), "a second start downloads, builds and converts nothing");
    let http = HttpClient::new((Ipv4Addr::LOCALHOST, port).into());
    assert_eq!(http.get("/embed?sentence=Hi", &valid).await.status, 200);
    let rejected = http.get("/embed?sentence=Hi", &revoked).await;
    assert_eq!(
        (rejected.status.as_u16(), rejected.json()),
        (401, json!({ "msg": "Token has been revoked" }))
    );
    login(&http, "maria", "correct horse").await;
    stack.stop("-TERM").await;
    let (code, stderr) = healthcheck(admin_port).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.starts_with(&format!("error: {admin_port} does not answer: ")), "{stderr}");
}

async fn login(http: &HttpClient, username: &str, password: &str) -> String {
    let answer = http.log_in(username, password, &[]).await;
    assert_eq!(answer.status, 200);
    answer.text_of("access_token")
}

/// Runs a program that must fail to start. Returns the exit status and standard error.
async fn failing_start(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Option<i32>, String) {
    let mut command = Command::new(root().join("target/release").join(program));
    for name in ["AUTH", "EMBEDDER", "GATEWAY"] {
        command.env(format!("{name}_PRIVATE_LISTEN"), "127.0.0.1:0");
    }
    command.args(arguments).envs(environment.iter().copied()).env_remove("NOTIFY_SOCKET");
    let output = tokio::time::timeout(TIMEOUT, command.output()).await.expect("it ends").expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn service_that_cannot_start_reports_the_reason() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let database = data.path().join("muse.db");
    let database = database.to_str().unwrap();
    let model = muse_tests::model_dir();
    let model = model.to_str().unwrap();
    let in_use = format!("cannot listen on {address}");

    let cases: [(&str, &[&str], i32, &str); 10] = [
        ("muse-gateway", &["--listen", "127.0.0.1:0", "--private-listen", &address], 1, &in_use),
        ("muse-gateway", &["--private-listen", "nowhere"], 64, "--private-listen"),
        // healthcheck needs no model directory, unlike the service.
        ("muse-embedder", &["healthcheck", "--private-listen", "127.0.0.1:0"], 1, "--private-listen"),
        ("muse-gateway", &["--listen", &address], 1, &in_use),
        ("muse-embedder", &["--listen", &address, "--model-dir", model], 1, &in_use),
        ("muse-auth", &["--listen", &address, "--database", database], 1, &in_use),
        ("muse-gateway", &["--listen", "nowhere"], 64, "--listen"),
        ("muse-gateway", &["--auth", "not a url"], 64, "--auth"),
        ("muse-embedder", &[], 64, "--model-dir"),
        ("muse-embedder", &["--model-dir", model, "--threads", "0"], 64, "--threads"),
    ];
    for (program, arguments, status, text) in cases {
        let (code, stderr) = failing_start(program, arguments, &[]).await;
        assert_eq!(code, Some(status), "{program} {arguments:?}: {stderr}");
        assert!(stderr.contains(text), "{program} {arguments:?}: {stderr}");
    }
    let (code, stderr) =
        failing_start("muse-embedder", &["--model-dir", model], &[("MUSE_THREADS", "many")]).await;
    assert_eq!(code, Some(64), "{stderr}");
    // An empty variable is an unset one: the next step fails.
    let listen = ["--listen", &address, "--model-dir", model];
    let variables =
        ["MUSE_PRECISION", "MUSE_PASSES", "MUSE_PLAINTEXT", "MUSE_TLS_CERT", "TOKIO_WORKER_THREADS"];
    let (code, stderr) = failing_start("muse-embedder", &listen, &variables.map(|name| (name, ""))).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(&in_use), "{stderr}");
    let (code, stderr) =
        failing_start("muse-auth", &["--listen", "127.0.0.1:0", "--database", model], &[]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(model), "{stderr}");
}

#[tokio::test(flavor = "multi_thread")]
async fn model_with_a_flipped_byte_is_rejected() {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(muse_tests::model_dir()).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let directory = copy.path().to_str().unwrap().to_owned();
    for name in ["model.pt", "tokenizer.model", "manifest.json"] {
        let file = copy.path().join(name);
        let sound = fs::read(&file).unwrap();
        let mut damaged = sound.clone();
        let middle = damaged.len() / 2;
        damaged[middle] ^= 1;
        fs::write(&file, &damaged).unwrap();
        let (code, stderr) =
            failing_start("muse-embedder", &["--listen", "127.0.0.1:0", "--model-dir", &directory], &[])
                .await;
        assert_eq!(code, Some(1), "{name}: {stderr}");
        assert!(stderr.contains(name), "{name}: {stderr}");
        fs::write(&file, &sound).unwrap();
    }
    fs::remove_file(copy.path().join("model.pt")).unwrap();
    let (code, stderr) =
        failing_start("muse-embedder", &["--listen", "127.0.0.1:0", "--model-dir", &directory], &[]).await;
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("model.pt"), "{stderr}");
}
