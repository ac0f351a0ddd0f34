//! Runs the README and the manual: `make run`, then their commands, a stop, and a start.
//!
//! The commands are the `sh` blocks of the README and of the pages that `docs/SUMMARY.md` links; a
//! `text` block after one is the expected output, in which `…` stands for anything.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use muse_tests::{PATIENCE, http_client::HttpClient, root};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
};

/// `make run`, on a port and a database of its own.
struct MakeRun {
    process: Child,
    output: Lines<BufReader<ChildStdout>>,
    port: u16,
}

impl MakeRun {
    async fn start(database: &Path, port: u16, private: SocketAddr) -> Self {
        let mut command = Command::new("make");
        command.arg("run").current_dir(root()).env("PORT", port.to_string()).env("DATABASE_URL", database);
        command.env("GATEWAY_PRIVATE_LISTEN", private.to_string());
        // What cargo, make and a coverage run set for the tests must not leak into a user's make.
        let kept = ["CARGO_HOME", "RUSTUP_HOME"];
        let leaking = ["CARGO", "OUT_DIR", "RUST", "LIBTORCH", "LLVM", "MAKE", "MFLAGS"];
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if leaking.iter().any(|prefix| name.starts_with(prefix)) && !kept.contains(&name.as_str()) {
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
            panic!("make run ended without saying {text:?}");
        };
        tokio::time::timeout(PATIENCE * 10, found).await.expect("it says so in time")
    }

    /// As Ctrl-C in a terminal does, or `kill`.
    async fn stop(mut self, signal: &str) {
        let children = children(self.process.id().expect("it runs"));
        let launcher = children.first().expect("make runs the launcher");
        let services = self::children(*launcher);
        assert_eq!(services.len(), 3, "auth, embedder and gateway");
        assert!(kill(signal, *launcher));
        self.wait_for("stopped").await;
        let status =
            tokio::time::timeout(PATIENCE, self.process.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{status}");
        for service in services {
            assert!(!Path::new(&format!("/proc/{service}")).exists(), "{service} still runs");
        }
        TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).expect("the port is free again");
    }
}

/// A test that fails leaves nothing running.
impl Drop for MakeRun {
    fn drop(&mut self) {
        // None once it has been waited for.
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

/// The status of `muse-gateway healthcheck` beside a gateway with that private port, and what it says.
async fn healthcheck(private: SocketAddr) -> (Option<i32>, String) {
    let mut command = Command::new(root().join("target/release/muse-gateway"));
    command.arg("healthcheck").env("GATEWAY_PRIVATE_LISTEN", private.to_string());
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The README, then the pages that `docs/SUMMARY.md` links, in its order.
fn documents() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect(path);
    let summary = read("docs/SUMMARY.md");
    let links = summary.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    let pages = links.map(|(page, _)| read(&format!("docs/{page}")));
    std::iter::once(read("README.md")).chain(pages).collect()
}

/// The commands of the documents that talk to a running stack, and what they print.
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

/// Whether `printed` holds the parts of `expected` between the ellipses, in order.
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
    let private = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let stack = MakeRun::start(&database, port, private).await;
    assert_eq!(healthcheck(private).await, (Some(0), String::new()));

    let commands = documented_commands();
    let count = |tool: &str| commands.iter().filter(|(command, _)| command.contains(tool)).count();
    assert!(count("curl ") >= 3 && count("grpcurl ") >= 3, "the documents show {} commands", commands.len());
    // One shell, since later commands use what earlier ones found.
    // Not pipefail: `head` may leave before the command in front of it is done.
    let mut script = "set -eu\n".to_owned();
    for (command, _) in &commands {
        script += &command.replace("localhost:5000", &format!("localhost:{port}"));
        script += "\necho '=== end of block'\n";
    }
    let path = std::env::var("PATH").unwrap_or_default();
    let stand_ins = root().join("tests/python");
    let ran = Command::new("bash")
        .args(["-c", &script])
        .current_dir(root())
        .env("PATH", format!("{path}:{}", stand_ins.display()))
        .output()
        .await
        .unwrap();
    let printed = String::from_utf8_lossy(&ran.stdout);
    let complaints = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}\n{printed}\n{complaints}", ran.status);
    for ((command, expected), output) in commands.iter().zip(printed.split("=== end of block")) {
        if let Some(expected) = expected {
            assert!(prints(output, expected), "{command}\nshould print\n{expected}\nand printed\n{output}");
        }
    }

    // A user added with the program, a revoked token, then a stop and a start.
    let mut add = Command::new(root().join("target/release/muse-auth"));
    add.args(["user", "add", "maria", "--database"]).arg(&database).stdin(Stdio::piped());
    let mut adding = add.spawn().expect("muse-auth is built");
    let mut input = adding.stdin.take().expect("it is piped");
    tokio::io::AsyncWriteExt::write_all(&mut input, b"correct horse\n").await.unwrap();
    drop(input);
    assert!(adding.wait().await.unwrap().success());
    let http = HttpClient::new((Ipv4Addr::LOCALHOST, port).into());
    let kept = login(&http, "maria", "correct horse").await;
    let revoked = login(&http, "maria", "correct horse").await;
    assert_eq!(http.post("/logout/access", &revoked).await.status, 200);
    stack.stop("-INT").await;

    let started = Instant::now();
    let stack = MakeRun::start(&database, port, private).await;
    let seconds = started.elapsed();
    println!("started again in {seconds:?}");
    assert!(seconds < Duration::from_secs(30), "a second start fetches, builds and converts nothing");
    let http = HttpClient::new((Ipv4Addr::LOCALHOST, port).into());
    assert_eq!(http.get("/embed?sentence=Hi", &kept).await.status, 200);
    let refused = http.get("/embed?sentence=Hi", &revoked).await;
    assert_eq!((refused.status.as_u16(), refused.json()), (401, json!({ "msg": "Token has been revoked" })));
    login(&http, "maria", "correct horse").await;
    stack.stop("-TERM").await;
    let (code, said) = healthcheck(private).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.starts_with(&format!("error: {private} does not answer: ")), "{said}");
}

async fn login(http: &HttpClient, username: &str, password: &str) -> String {
    let answer = http.log_in(username, password, &[]).await;
    assert_eq!(answer.status, 200);
    answer.text_of("access_token")
}

/// Runs a service's program, which must refuse to start, and returns its status and what it said.
async fn refused(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(root().join("target/release").join(program));
    for name in ["AUTH", "EMBEDDER", "GATEWAY"] {
        command.env(format!("{name}_PRIVATE_LISTEN"), "127.0.0.1:0");
    }
    command.args(arguments).envs(environment.iter().copied()).env_remove("NOTIFY_SOCKET");
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it starts");
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
        // It asks for no model, which the service needs.
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
        let (code, said) = refused(program, arguments, &[]).await;
        assert_eq!(code, Some(status), "{program} {arguments:?}: {said}");
        assert!(said.contains(text), "{program} {arguments:?}: {said}");
    }
    let (code, said) = refused("muse-embedder", &["--model-dir", model], &[("MUSE_THREADS", "many")]).await;
    assert_eq!(code, Some(64), "{said}");
    let (code, said) = refused("muse-auth", &["--listen", "127.0.0.1:0", "--database", model], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(model), "{said}");
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
        let (code, said) =
            refused("muse-embedder", &["--listen", "127.0.0.1:0", "--model-dir", &directory], &[]).await;
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains(name), "{name}: {said}");
        fs::write(&file, &sound).unwrap();
    }
    fs::remove_file(copy.path().join("model.pt")).unwrap();
    let (code, said) =
        refused("muse-embedder", &["--listen", "127.0.0.1:0", "--model-dir", &directory], &[]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("model.pt"), "{said}");
}
