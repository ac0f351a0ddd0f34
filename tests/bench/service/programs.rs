//! The real programs, started by the launcher.

use std::{
    fs::File,
    net::SocketAddr,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use muse_model::precision::Precision;
use muse_proto::v1::{
    AddUserRequest, CreateKeyRequest, LoginRequest, Role, auth_service_client::AuthServiceClient,
    key_service_client::KeyServiceClient, user_service_client::UserServiceClient,
};
use muse_tests::{bearing, channel, procfs, root};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::options::Options;

/// A valid password.
const PASSWORD: &str = "a long enough passphrase";

/// The processes of auth, embedder and gateway, and their launcher.
pub(crate) struct Programs {
    launcher: Child,
    /// The folder of the database.
    _data: TempDir,
    log: PathBuf,
    services: Vec<u32>,
    /// Address of the gateway's public port.
    pub(crate) address: SocketAddr,
    /// The admin port of each service, by name.
    pub(crate) admin_ports: Vec<(String, SocketAddr)>,
    /// Time from the start of the launcher until it reports that all services are ready.
    pub(crate) ready_after: Duration,
    /// An access token of admin.
    pub(crate) token: String,
}

impl Programs {
    /// Starts the programs of the options in a precision, on free ports and with a new database.
    pub(crate) async fn start(options: &Options, precision: Precision) -> Self {
        let data = tempfile::tempdir().expect("there is a place for temporary files");
        let log = data.path().join("log");
        let started = Instant::now();
        let mut launcher = Command::new("python3")
            .arg(root().join("deploy/local.py"))
            .args([&options.programs, &options.model, data.path()])
            .env("PORT", "0")
            .env("MUSE_PRECISION", precision.as_str())
            .env_remove("HOST")
            // High limits, so that the queue is measured.
            .env("MAX_CALLS_PER_USER", "8192")
            .env("MAX_CALLS_PER_ADDRESS", "8192")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(&log).expect("the folder is ours"))
            .kill_on_drop(true)
            .spawn()
            .expect("there is a python3");
        let output = launcher.stdout.take().expect("it was asked for");
        let mut lines = BufReader::new(output).lines();
        let address = loop {
            let Some(line) = lines.next_line().await.expect("it prints text") else {
                panic!("the programs did not start:\n{}", std::fs::read_to_string(&log).unwrap_or_default());
            };
            if let Some((_, rest)) = line.split_once("on http://") {
                let address = rest.split_whitespace().next().unwrap_or_default();
                break address.parse().expect("it is an address");
            }
        };
        let ready_after = started.elapsed();
        let line = lines.next_line().await.expect("it prints text").unwrap_or_default();
        let admin_ports = admin_ports(&line);
        // Read the rest of the output, so that the launcher does not block.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let services = procfs::children(launcher.id().expect("it runs"));
        let token = log_in(address, "admin", "admin").await;
        Self { launcher, _data: data, log, services, address, admin_ports, ready_after, token }
    }

    /// Adds a user and returns an access token.
    pub(crate) async fn add_user(&self, name: &str) -> String {
        let request = AddUserRequest {
            username: name.to_owned(),
            password: PASSWORD.to_owned(),
            role: Role::User.into(),
        };
        let mut users = UserServiceClient::new(channel(self.address));
        users.add_user(bearing(&self.token, request)).await.expect("admin may add users");
        log_in(self.address, name, PASSWORD).await
    }

    /// Creates an API key of admin.
    pub(crate) async fn add_key(&self) -> String {
        let request = CreateKeyRequest { name: "command".to_owned(), ..Default::default() };
        let created =
            KeyServiceClient::new(channel(self.address)).create_key(bearing(&self.token, request)).await;
        created.expect("admin has few keys").into_inner().secret_key
    }

    /// Creates a bulk key of the owner of a token.
    pub(crate) async fn add_bulk_key(&self, token: &str) -> String {
        let request = CreateKeyRequest { name: "job".to_owned(), bulk: true, ..Default::default() };
        let created = KeyServiceClient::new(channel(self.address)).create_key(bearing(token, request)).await;
        created.expect("the user has no keys yet").into_inner().secret_key
    }

    /// PSS of each service in MB, by name.
    pub(crate) fn memory(&self) -> Vec<(String, f64)> {
        self.services.iter().map(|&process| (procfs::name(process), procfs::pss_mb(process))).collect()
    }

    /// PSS of all services in MB.
    pub(crate) fn pss_mb(&self) -> f64 {
        self.services.iter().map(|&process| procfs::pss_mb(process)).sum()
    }

    /// CPU time of all services.
    pub(crate) fn cpu_time(&self) -> Duration {
        self.services.iter().map(|&process| procfs::cpu_time(process)).sum()
    }

    /// CPU time of each service without forward passes, by name.
    pub(crate) fn cpu_time_besides_model(&self) -> Vec<(String, Duration)> {
        let time = |process| {
            procfs::cpu_time(process).saturating_sub(procfs::cpu_time_of_threads(process, "muse-model-"))
        };
        self.services.iter().map(|&process| (procfs::name(process), time(process))).collect()
    }

    /// Stops the programs with SIGTERM and waits until they have ended. Returns whether all ended
    /// with status 0; prints their output otherwise. The measured values are valid in both cases.
    pub(crate) async fn stop(mut self) -> bool {
        let launcher = self.launcher.id().expect("it runs").to_string();
        let sent = Command::new("kill").args(["-TERM", &launcher]).status().await;
        assert!(sent.is_ok_and(|status| status.success()), "the launcher is there until now");
        let status = self.launcher.wait().await.expect("it was started here");
        if !status.success() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            eprintln!("the programs ended with {status}:\n{log}");
        }
        status.success()
    }
}

/// Parses the launcher's line `metrics: muse-auth http://127.0.0.1:1234/metrics, …`.
fn admin_ports(line: &str) -> Vec<(String, SocketAddr)> {
    let services = line.trim_start_matches("metrics: ").split(", ");
    let port = |service: &str| {
        let (name, url) = service.split_once(" http://")?;
        Some((name.to_owned(), url.strip_suffix("/metrics")?.parse().ok()?))
    };
    services.filter_map(port).collect()
}

async fn log_in(address: SocketAddr, name: &str, password: &str) -> String {
    let request = LoginRequest { username: name.to_owned(), password: password.to_owned() };
    let answer = AuthServiceClient::new(channel(address)).login(request).await;
    answer.expect("the user may log in").into_inner().access_token
}
