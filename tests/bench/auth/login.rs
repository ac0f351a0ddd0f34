//! Durations of rejected logins, which must not depend on the existence of the user, and the effect
//! of a burst of logins.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use muse_auth::{AdminOps, Config, Role};
use muse_proto::{
    Error, Reason,
    v1::{LoginRequest, LoginResponse, RefreshTokenRequest, auth_service_client::AuthServiceClient},
};
use muse_tests::{bearing, channel};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};
use tonic::{Request, transport::Channel};

use crate::{memory_kib, row, title};

const USERS: u32 = 20;
const PASSWORD: &str = "correct horse battery staple";
const REJECTED: u32 = 200;
/// Less than the login limit of a client address.
const ATTEMPTS_PER_ADDRESS: u32 = 15;
const BURST: u32 = 500;
const CONNECTIONS: usize = 10;

/// A muse-auth process, so that its memory can be measured.
struct Service {
    process: Child,
    address: SocketAddr,
}

impl Service {
    async fn start(database: &Path) -> Self {
        let program = std::env::current_exe().expect("it has a path").with_file_name("muse-auth");
        let mut process = Command::new(program)
            .args(["--listen", "127.0.0.1:0", "--private-listen", "127.0.0.1:0"])
            .env("DATABASE_URL", database)
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("muse-auth is built");
        let mut log = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let address = loop {
            let line = log.next_line().await.expect("it logs text").expect("it logs its address");
            if let Some((_, address)) = line.split_once("address=") {
                break address.trim().parse().expect("an address");
            }
        };
        // A full pipe would block the process.
        tokio::spawn(async move { while let Ok(Some(_)) = log.next_line().await {} });
        Self { process, address }
    }

    fn client(&self) -> AuthServiceClient<Channel> {
        AuthServiceClient::new(channel(self.address))
    }

    fn memory_mib(&self, field: &str) -> u64 {
        let process = self.process.id().expect("it runs");
        memory_kib(&process.to_string(), field) / 1024
    }

    async fn stop(mut self) {
        self.process.kill().await.expect("it runs");
    }
}

pub(crate) async fn measure() {
    let data = tempfile::tempdir().expect("a temporary directory can be made");
    let database = data.path().join("muse.db");
    let maintenance = AdminOps::open(Config::new(&database)).await.expect("a new database");
    let users = maintenance.users().expect("a thread that hashes");
    for number in 0..USERS {
        users.add(&user(number), PASSWORD.into(), Role::User).await.expect("a new user");
    }
    drop(users);
    maintenance.close().await;

    rejected_logins(&database).await;
    burst(&database).await;
}

fn user(number: u32) -> String {
    format!("user{}", number % USERS)
}

/// Logs in with the metadata that a gateway adds, from the client address with this number.
async fn log_in(
    client: &mut AuthServiceClient<Channel>,
    client_number: u32,
    username: String,
    password: &str,
) -> Result<LoginResponse, Reason> {
    let mut request = Request::new(LoginRequest { username, password: password.to_owned() });
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + client_number);
    let address = address.to_string().parse().expect("an address is ASCII");
    request.metadata_mut().insert("x-forwarded-for", address);
    let response = client.login(request).await;
    response.map(tonic::Response::into_inner).map_err(|status| Error::from(&status).reason())
}

async fn rejected_logins(database: &Path) {
    let service = Service::start(database).await;
    let mut client = service.client();
    let (mut unknown, mut wrong) = (Vec::new(), Vec::new());
    for number in 0..2 * REJECTED {
        let name = user(number / 2);
        let known = number % 2 == 0;
        let (times, name) = if known { (&mut wrong, name) } else { (&mut unknown, format!("no{name}")) };
        let start = Instant::now();
        let rejected = log_in(&mut client, number / ATTEMPTS_PER_ADDRESS, name, "a wrong one").await;
        times.push(start.elapsed());
        assert_eq!(rejected.err(), Some(Reason::BadCredentials));
    }
    title("Rejected logins");
    row("unknown user", unknown);
    row("wrong password", wrong);
    service.stop().await;
}

async fn burst(database: &Path) {
    let service = Service::start(database).await;
    let idle = service.memory_mib("VmRSS");
    let mut client = service.client();
    let refresh = log_in(&mut client, BURST, user(0), PASSWORD).await.expect("it is right").refresh_token;
    let one = service.memory_mib("VmRSS");
    let idle_refreshes = refreshes(&mut client, &refresh, |done| done == 500).await;

    let done = AtomicBool::new(false);
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| service.client()).collect();
    let logins = async {
        let logins = (0..BURST).map(|number| {
            let mut client = clients[number as usize % CONNECTIONS].clone();
            async move {
                let start = Instant::now();
                let response = log_in(&mut client, number, user(number), PASSWORD).await;
                (response.map(drop), start.elapsed())
            }
        });
        let responses = futures::future::join_all(logins).await;
        done.store(true, Ordering::Relaxed);
        responses
    };
    let burst_refreshes = refreshes(&mut client, &refresh, |_| done.load(Ordering::Relaxed));
    let (responses, burst_refreshes) = tokio::join!(logins, burst_refreshes);
    let (mut served, mut rejected) = (Vec::new(), Vec::new());
    for (response, time) in responses {
        match response {
            Ok(()) => served.push(time),
            Err(reason) => {
                assert_eq!(reason, Reason::Overloaded);
                rejected.push(time);
            }
        }
    }
    title(&format!("{BURST} concurrent logins"));
    row("served", served);
    row("rejected", rejected);
    row("RefreshToken, idle", idle_refreshes);
    row("RefreshToken, during the burst", burst_refreshes);
    let (after, peak) = (service.memory_mib("VmRSS"), service.memory_mib("VmHWM"));
    println!("  memory: {idle} MiB idle, {one} after one login, peak {peak}, {after} after the burst");
    service.stop().await;
}

/// Durations of sequential refreshes.
async fn refreshes(
    client: &mut AuthServiceClient<Channel>,
    token: &str,
    is_done: impl Fn(usize) -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while times.is_empty() || !is_done(times.len()) {
        let start = Instant::now();
        client.refresh_token(bearing(token, RefreshTokenRequest {})).await.expect("it is refreshed");
        times.push(start.elapsed());
    }
    times
}
