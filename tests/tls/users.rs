//! TLS between users and the gateway.

use std::{
    io::Read,
    net::TcpStream,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use clap::Parser;
use muse_proto::v1::{EmbedRequest, embedder_service_client::EmbedderServiceClient};
use muse_server::{
    grpc,
    tls::{Connector, PeerArgs},
};
use muse_tests::{
    Service, auth_config, bearing,
    certificates::{Authority, Files},
    login, root,
    running::{Running, stack},
    start_auth, start_gateway, until,
};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

const FORM: [&str; 4] = ["--data", "username=admin", "--data", "password=admin"];

/// Runs curl. Returns its output, or standard error if it fails.
async fn curl(arguments: &[&str]) -> Result<String, String> {
    let curl = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20"])
        .args(arguments)
        .kill_on_drop(true)
        .output();
    let output = curl.await.expect("curl is there");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr)),
    }
}

/// The commands of docs/operations/tls.md: certificates, settings, a login.
fn documented_commands() -> [String; 3] {
    let page = std::fs::read_to_string(root().join("docs/operations/tls.md")).expect("the page is there");
    let blocks = page.split("```bash\n").skip(1).filter_map(|rest| rest.split("```").next());
    let blocks: Vec<_> = blocks.map(str::to_owned).collect();
    blocks.try_into().expect("it has three blocks of commands")
}

/// Runs a script in a folder and returns its output.
async fn shell(folder: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-euc", script]).current_dir(folder).kill_on_drop(true).output();
    let output = output.await.expect("bash is there");
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8(output.stdout).expect("it prints text")
}

#[tokio::test(flavor = "multi_thread")]
async fn stack_with_tls_everywhere_serves_all_clients() {
    let folder = tempfile::tempdir().unwrap();
    let [make_files, settings, log_in] = documented_commands();
    shell(folder.path(), &make_files).await;
    let exports: String = settings.split_inclusive('\n').filter(|line| line.starts_with("export ")).collect();
    let running = Running::start(&mut stack(&format!("cd {}\n{exports}", folder.path().display())));
    let [ca, cert, key] =
        ["ca.pem", "muse.pem", "muse.key"].map(|name| folder.path().join("var/tls").join(name));
    let own = Files { cert, key };
    let line = running.wait_for_log("ready after").await;
    let url =
        line.split_whitespace().find(|word| word.starts_with("https://")).expect("the line contains the URL");

    let port = url.rsplit(':').next().unwrap_or_default();
    let tokens = shell(folder.path(), &log_in.replace("localhost:5000", &format!("localhost:{port}"))).await;
    assert!(tokens.contains("\"access_token\""), "{tokens}");

    for (version, first_line) in [("--http2", "HTTP/2 200"), ("--http1.1", "HTTP/1.1 200 OK")] {
        let options = [version, "--include", "--cacert", ca.to_str().unwrap()];
        let login_url = format!("{url}/login");
        let answer = curl(&[&options[..], &FORM, &[&*login_url]].concat()).await.unwrap();
        assert!(answer.starts_with(first_line), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let head = head.to_ascii_lowercase();
        let cookies: Vec<_> = head.lines().filter(|line| line.starts_with("set-cookie:")).collect();
        assert!(cookies.len() == 2 && cookies.iter().all(|cookie| cookie.ends_with("; secure")), "{head}");
        assert!(head.contains("strict-transport-security: max-age="), "{head}");
        let tokens: Value = serde_json::from_str(body).unwrap();
        let authorization = format!("Authorization: Bearer {}", tokens["access_token"].as_str().unwrap());
        let embed_url = format!("{url}/embed?sentence=Merhaba");
        let embed = [&options[..], &["--header", &*authorization, &*embed_url]].concat();
        let answer = curl(&embed).await.unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let vectors: Value = serde_json::from_str(body).unwrap();
        assert_eq!(vectors["embedding"][0].as_array().map(Vec::len), Some(512), "{answer}");
    }

    let options = ["x", "--peer-ca", path(&ca), "--peer-cert", path(&own.cert), "--peer-key", path(&own.key)];
    let tls = Options::parse_from(options).peers.client([]).unwrap();
    let channel = grpc::channel(&grpc::endpoint(url).unwrap(), &Connector::new(tls.as_ref()));
    let tokens = login(channel.clone()).await;
    let request = EmbedRequest { sentences: vec!["Merhaba".to_owned()], ..EmbedRequest::default() };
    let call = bearing(&tokens.access_token, request);
    let answer = EmbedderServiceClient::new(channel).embed(call).await.unwrap().into_inner();
    assert_eq!(answer.embeddings.len(), 1);

    let python = Command::new(root().join("target/client/bin/python"))
        .args(["-c", include_str!("client.py"), url, path(&ca)])
        .kill_on_drop(true)
        .output();
    let python = python.await.expect("the client is installed: run `make client`");
    assert_eq!(
        String::from_utf8_lossy(&python.stdout).trim(),
        "(2, 512) (2, 512) rejected rejected",
        "{python:?}"
    );
}

#[derive(Parser)]
struct Options {
    #[command(flatten)]
    peers: PeerArgs,
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// An auth service, and a gateway with a certificate of a test CA.
struct Gateway {
    folder: TempDir,
    ca: PathBuf,
    gateway: Service,
    auth: Service,
}

impl Gateway {
    /// Starts the services. `install` moves the files of the certificate to their final paths.
    async fn start(install: impl FnOnce(&Path, Files) -> Files) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("first");
        let ca = authority.write(folder.path().join("first.ca"));
        let own = install(folder.path(), authority.issue(&["127.0.0.1"]).write(folder.path(), "own"));
        let auth = start_auth(auth_config(folder.path())).await;
        let options = ["--tls-cert", path(&own.cert), "--tls-key", path(&own.key)];
        let gateway = start_gateway(auth.address, auth.address, &options).await;
        Self { folder, ca, gateway, auth }
    }

    /// Requests a document from the gateway with a client that trusts a CA.
    async fn get_as(&self, ca: &Path) -> Result<String, String> {
        curl(&["--cacert", path(ca), &format!("https://{}/openapi.json", self.gateway.address)]).await
    }

    async fn stop(self) {
        self.gateway.stop().await;
        self.auth.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn new_certificate_is_reloaded_and_an_invalid_one_ignored() {
    let running = Gateway::start(|_, own| own).await;
    running.get_as(&running.ca).await.expect("the first certificate is served");

    let second = Authority::new("second");
    let second_ca = second.write(running.folder.path().join("second.ca"));
    second.issue(&["127.0.0.1"]).write(running.folder.path(), "own");
    until(async || running.get_as(&second_ca).await.ok()).await;
    running.get_as(&running.ca).await.expect_err("the first certificate is gone");

    for bad in [second.issue_expired(&["127.0.0.1"]).cert, "no PEM".to_owned(), String::new()] {
        std::fs::write(running.folder.path().join("own.pem"), bad).unwrap();
        // Twice the interval of the reload.
        tokio::time::sleep(Duration::from_secs(3)).await;
        running.get_as(&second_ca).await.expect("the one before is still served");
    }
    std::fs::remove_file(running.folder.path().join("own.pem")).unwrap();
    let third = Authority::new("third");
    let third_ca = third.write(running.folder.path().join("third.ca"));
    third.issue(&["127.0.0.1"]).write(running.folder.path(), "own");
    until(async || running.get_as(&third_ca).await.ok()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificate_behind_symbolic_links_is_reloaded() {
    let running = Gateway::start(|folder, own| {
        let version = folder.join("..2026_1");
        std::fs::create_dir(&version).unwrap();
        std::fs::rename(own.cert, version.join("tls.crt")).unwrap();
        std::fs::rename(own.key, version.join("tls.key")).unwrap();
        symlink("..2026_1", folder.join("..data")).unwrap();
        let [cert, key] = ["tls.crt", "tls.key"].map(|name| {
            symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
            folder.join(name)
        });
        Files { cert, key }
    })
    .await;
    running.get_as(&running.ca).await.expect("the first certificate is served");

    let folder = running.folder.path();
    let second = Authority::new("second");
    let second_ca = second.write(folder.join("second.ca"));
    let version = folder.join("..2026_2");
    std::fs::create_dir(&version).unwrap();
    let new = second.issue(&["127.0.0.1"]).write(&version, "tls");
    std::fs::rename(new.cert, version.join("tls.crt")).unwrap();
    symlink("..2026_2", folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    until(async || running.get_as(&second_ca).await.ok()).await;
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http_on_the_tls_port_gets_400() {
    let running = Gateway::start(|_, own| own).await;
    let url = format!("http://{}/openapi.json", running.gateway.address);
    let response = curl(&["--include", &url]).await.unwrap();
    assert!(
        response.starts_with("HTTP/1.1 400 ") && response.ends_with("use https:// instead"),
        "{response}"
    );
    // TLS before 1.2 is rejected.
    let old = format!("https://{}/openapi.json", running.gateway.address);
    curl(&["--cacert", path(&running.ca), "--tls-max", "1.1", &old]).await.expect_err("it is too old");
    curl(&["--cacert", path(&running.ca), "--tls-max", "1.2", &old]).await.expect("1.2 is served");
    curl(&["--cacert", path(&running.ca), "--tlsv1.3", &old]).await.expect("1.3 is served");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stalled_handshakes_time_out_and_block_no_client() {
    let running = Gateway::start(|_, own| own).await;
    let start = Instant::now();
    let mut silent: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(running.gateway.address).unwrap()).collect();
    for half in silent.iter_mut().step_by(2) {
        // Only the header of a record.
        std::io::Write::write_all(half, &[22, 3, 1, 2, 0]).unwrap();
    }
    running.get_as(&running.ca).await.expect("others are served");
    assert!(start.elapsed() < Duration::from_secs(5), "after {:?}", start.elapsed());
    let ended = tokio::task::spawn_blocking(move || {
        for stream in &mut silent {
            stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
            let mut rest = Vec::new();
            // The server may send an alert first, or reset the connection.
            if let Err(failure) = stream.read_to_end(&mut rest) {
                assert_eq!(failure.kind(), std::io::ErrorKind::ConnectionReset);
            }
        }
    });
    ended.await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(20), "after {:?}", start.elapsed());
    running.stop().await;
}
