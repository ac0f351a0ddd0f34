//! Services continue if the reader of their log stops or exits, and if file descriptors are scarce.

#![expect(clippy::unwrap_used, reason = "a test helper that fails fails its test")]

use std::{
    io::{Read, pipe},
    net::SocketAddr,
    path::Path,
    process::Stdio,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use muse_tests::{
    TIMEOUT,
    http_client::HttpClient,
    program::Program,
    running::{built, program},
    until,
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream, UnixDatagram},
    process::{Child, Command},
    task::JoinSet,
    time::timeout,
};

/// Timeout of a probe; a probe that takes longer is blocked.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);

/// A running service whose supervisor is the test.
struct Supervised {
    process: Child,
    /// Socket of its sd_notify messages, which the test reads only until the service listens.
    _notices: UnixDatagram,
    public: SocketAddr,
    admin_port: HttpClient,
    _folder: TempDir,
}

impl Supervised {
    async fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("notices");
        let notices = UnixDatagram::bind(&socket).unwrap();
        let process = command.env("NOTIFY_SOCKET", &socket).current_dir(folder.path()).spawn().unwrap();
        let admin_port = notice(&notices, "X_MUSE_PRIVATE").await;
        let public = notice(&notices, "X_MUSE_LISTENING").await;
        Self { process, _notices: notices, public, admin_port: HttpClient::new(admin_port), _folder: folder }
    }

    /// Sends a request to the admin port, which must respond within `PROBE_TIMEOUT`.
    async fn get(&self, path: &str) -> (u16, String) {
        let answer = timeout(PROBE_TIMEOUT, self.admin_port.send("GET", path, &[], "")).await;
        let answer = answer.unwrap_or_else(|_| panic!("{path} does not respond"));
        (answer.status.as_u16(), String::from_utf8_lossy(&answer.body).into_owned())
    }

    async fn dropped_lines(&self) -> u64 {
        let (_, metrics) = self.get("/metrics").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix("muse_log_lines_dropped_total "));
        value.expect("the metric exists").parse().unwrap()
    }

    /// Sends requests, each of which logs a line, until lines are dropped.
    async fn log_until_lines_are_dropped(&self) {
        let users = HttpClient::new(self.public);
        let mut requests = 0;
        while self.dropped_lines().await == 0 {
            assert!(requests < 50_000, "no line was dropped");
            for _ in 0..500 {
                let answer = timeout(PROBE_TIMEOUT, users.send("GET", "/v1/models", &[], "")).await;
                assert_eq!(answer.expect("it answers").status, 401);
                requests += 1;
            }
        }
        assert!(requests > 1_000, "{requests}");
    }

    /// Stops the service, which must exit with status 0 within 10 s.
    async fn stop(mut self) {
        let process = self.process.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-TERM", &process]).status().await.unwrap().success());
        let status = timeout(Duration::from_secs(10), self.process.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "{status}");
    }
}

async fn notice(notices: &UnixDatagram, key: &str) -> SocketAddr {
    let mut buffer = [0; 4096];
    loop {
        let length = timeout(TIMEOUT, notices.recv(&mut buffer)).await.unwrap().unwrap();
        let text = String::from_utf8_lossy(&buffer[..length]);
        if let Some(address) = text.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')) {
            return address.parse().unwrap();
        }
    }
}

/// A gateway whose auth service and embedder are unreachable.
fn gateway_without_backends() -> Command {
    let mut command = program("muse-gateway");
    set_unreachable_backends(&mut command);
    command
}

fn set_unreachable_backends(command: &mut Command) {
    command.env("GATEWAY_LISTEN", "127.0.0.1:0").env("GATEWAY_PRIVATE_LISTEN", "127.0.0.1:0");
    command.env("AUTH_URL", "http://127.0.0.1:1").env("EMBEDDER_URL", "http://127.0.0.1:1");
}

#[tokio::test(flavor = "multi_thread")]
async fn full_stderr_pipe_blocks_no_request() {
    let (reader, output) = pipe().unwrap();
    let gateway = Supervised::start(gateway_without_backends().stderr(output)).await;
    gateway.log_until_lines_are_dropped().await;
    assert_eq!(gateway.get("/livez").await.0, 200);

    // The reader continues: the log reports the number of dropped lines.
    let text = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&text);
    let reading = thread::spawn(move || {
        let (mut reader, mut buffer) = (reader, [0; 65_536]);
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            log.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    let contains = |wanted: &str| text.lock().unwrap().contains(wanted).then_some(());
    until(async || contains("lines of the log were dropped")).await;
    let lost = gateway.dropped_lines().await;
    gateway.stop().await;
    reading.join().unwrap();
    let text = text.lock().unwrap();
    assert!(text.contains("shutting down"), "the last lines are missing");
    let reports = text.lines().filter_map(|line| line.split_once("lines of the log were dropped lines="));
    let reported: u64 = reports.map(|(_, lines)| lines.trim().parse::<u64>().unwrap()).sum();
    assert_eq!(reported, lost);
}

#[tokio::test(flavor = "multi_thread")]
async fn full_stderr_pipe_does_not_block_the_shutdown() {
    let (_reader, output) = pipe().unwrap();
    let gateway = Supervised::start(gateway_without_backends().stderr(output)).await;
    gateway.log_until_lines_are_dropped().await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn exited_reader_of_stderr_does_not_end_a_service() {
    let (reader, output) = pipe().unwrap();
    let gateway =
        Supervised::start(gateway_without_backends().stdout(output.try_clone().unwrap()).stderr(output))
            .await;
    drop(reader);
    let users = HttpClient::new(gateway.public);
    for _ in 0..100 {
        assert_eq!(users.send("GET", "/v1/models", &[], "").await.status, 401);
    }
    assert_eq!(gateway.get("/livez").await.0, 200);
    until(async || (gateway.dropped_lines().await > 50).then_some(())).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_terminal_blocks_no_request() {
    let gateway = built().join("muse-gateway");
    let shell = format!("echo $$ > process; exec {}", gateway.display());
    let mut command = Command::new("script");
    command.args(["-qec", &shell, "/dev/null"]).kill_on_drop(true);
    set_unreachable_backends(&mut command);
    let mut gateway =
        Supervised::start(command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null())).await;
    // Ctrl-S.
    gateway.process.stdin.as_mut().unwrap().write_all(b"\x13").await.unwrap();
    gateway.log_until_lines_are_dropped().await;
    assert_eq!(gateway.get("/livez").await.0, 200);
    let process = std::fs::read_to_string(gateway._folder.path().join("process")).unwrap();
    let process = process.trim();
    assert!(Command::new("kill").args(["-TERM", process]).status().await.unwrap().success());
    until(async || (!Path::new("/proc").join(process).join("fd").exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_notices_do_not_block_the_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let auth = Program::auth(any, folder.path()).await;
    let embedder = Program::embedder(any, auth.address).await;
    embedder.ready().await;
    let listener = TcpListener::bind(any).await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut command = program("muse-gateway");
    command.env("GATEWAY_LISTEN", "127.0.0.1:0").env("LOG_LEVEL", "warn");
    command.env("AUTH_URL", format!("http://{}", auth.address));
    let gateway = Supervised::start(command.env("EMBEDDER_URL", format!("http://{address}"))).await;
    // More messages than the socket's queue accepts (net.unix.max_dgram_qlen is 10).
    for _ in 0..15 {
        let forwarding = tokio::spawn(forward(TcpListener::bind(address).await.unwrap(), embedder.address));
        until(async || (gateway.get("/readyz").await.0 == 200).then_some(())).await;
        forwarding.abort();
        until(async || (gateway.get("/readyz").await.0 == 503).then_some(())).await;
    }
    assert_eq!(gateway.get("/livez").await.0, 200);
    gateway.stop().await;
    embedder.stop().await;
    auth.stop().await;
}

/// Forwards connections until the task is aborted, which closes them.
async fn forward(listener: TcpListener, to: SocketAddr) {
    let mut connections = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        connections.spawn(async move {
            if let Ok(mut to) = TcpStream::connect(to).await {
                let _ = copy_bidirectional(&mut from, &mut to).await;
            }
        });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_leave_descriptors_for_the_admin_port() {
    let database = tempfile::tempdir().unwrap();
    for name in ["muse-gateway", "muse-auth"] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 128; exec \"$0\""]).arg(built().join(name)).kill_on_drop(true);
        set_unreachable_backends(&mut command);
        command.env("AUTH_LISTEN", "127.0.0.1:0").env("AUTH_PRIVATE_LISTEN", "127.0.0.1:0");
        command.env("DATABASE_URL", database.path().join("muse.db")).env("LOG_LEVEL", "warn");
        let service = Supervised::start(&mut command).await;
        // Connections beyond the limit wait in the kernel's backlog, whose length varies.
        let mut silent = JoinSet::new();
        for _ in 0..200 {
            let address = service.public;
            silent.spawn(async move {
                let _connection = TcpStream::connect(address).await;
                std::future::pending::<()>().await;
            });
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        let started = Instant::now();
        for _ in 0..20 {
            // A new connection for each probe.
            let probe = HttpClient::new(service.admin_port.address());
            let answer = timeout(PROBE_TIMEOUT, probe.send("GET", "/livez", &[], "")).await;
            assert_eq!(answer.expect("it answers at once").status, 200, "{name}");
        }
        assert!(started.elapsed() < PROBE_TIMEOUT, "{name}: {:?}", started.elapsed());
        drop(silent);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn soft_limit_on_open_files_is_raised() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 64; exec \"$0\""]).arg(built().join("muse-gateway")).kill_on_drop(true);
    set_unreachable_backends(&mut command);
    let gateway = Supervised::start(&mut command).await;
    let limits = format!("/proc/{}/limits", gateway.process.id().unwrap());
    let limits = std::fs::read_to_string(limits).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<_> = line.split_whitespace().skip(3).take(2).collect();
    assert!(numbers[0] == numbers[1] && numbers[0] != "64", "{line}");
    // The limit on connections follows: with 64 files it would be 32.
    let mut idle = Vec::new();
    for _ in 0..100 {
        idle.push(TcpStream::connect(gateway.public).await.unwrap());
    }
    let served = HttpClient::new(gateway.public);
    let answer = timeout(PROBE_TIMEOUT, served.send("GET", "/openapi.json", &[], "")).await;
    assert_eq!(answer.expect("it is served at once").status, 200);
    drop(idle);
    gateway.stop().await;
}
