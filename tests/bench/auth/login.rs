//! Whether the time of a refused login tells who exists, and what a burst of logins does to the service.

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
const REFUSED: u32 = 200;
/// Fewer than those after which an address has to wait.
const TRIES_PER_ADDRESS: u32 = 15;
const BURST: u32 = 500;
const CONNECTIONS: usize = 10;

/// The program, whose memory is its own.
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
            let line = log.next_line().await.expect("it logs text").expect("it says where it listens");
            if let Some((_, address)) = line.split_once("address=") {
                break address.trim().parse().expect("an address");
            }
        };
        // Else it would wait for somebody to read its log.
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
    let data = tempfile::tempdir().expect("there is a place for temporary files");
    let database = data.path().join("muse.db");
    let maintenance = AdminOps::open(Config::new(&database)).await.expect("a new database");
    let users = maintenance.users().expect("a thread that hashes");
    for number in 0..USERS {
        users.add(&user(number), PASSWORD.into(), Role::User).await.expect("a new user");
    }
    drop(users);
    maintenance.close().await;

    refusals(&database).await;
    burst(&database).await;
}

fn user(number: u32) -> String {
    format!("user{}", number % USERS)
}

/// A login as a gateway hands it on, from the machine of that number.
async fn log_in(
    client: &mut AuthServiceClient<Channel>,
    machine: u32,
    username: String,
    password: &str,
) -> Result<LoginResponse, Reason> {
    let mut request = Request::new(LoginRequest { username, password: password.to_owned() });
    let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + machine);
    let address = address.to_string().parse().expect("an address is ASCII");
    request.metadata_mut().insert("x-forwarded-for", address);
    let answer = client.login(request).await;
    answer.map(tonic::Response::into_inner).map_err(|status| Error::from(&status).reason())
}

async fn refusals(database: &Path) {
    let service = Service::start(database).await;
    let mut client = service.client();
    let (mut unknown, mut wrong) = (Vec::new(), Vec::new());
    for number in 0..2 * REFUSED {
        let name = user(number / 2);
        let known = number % 2 == 0;
        let (times, name) = if known { (&mut wrong, name) } else { (&mut unknown, format!("no{name}")) };
        let begun = Instant::now();
        let refused = log_in(&mut client, number / TRIES_PER_ADDRESS, name, "a wrong one").await;
        times.push(begun.elapsed());
        assert_eq!(refused.err(), Some(Reason::BadCredentials));
    }
    title("A refused login");
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
    let alone = refreshes(&mut client, &refresh, |done| done == 500).await;

    let over = AtomicBool::new(false);
    let clients: Vec<_> = (0..CONNECTIONS).map(|_| service.client()).collect();
    let logins = async {
        let logins = (0..BURST).map(|number| {
            let mut client = clients[number as usize % CONNECTIONS].clone();
            async move {
                let begun = Instant::now();
                let answer = log_in(&mut client, number, user(number), PASSWORD).await;
                (answer.map(drop), begun.elapsed())
            }
        });
        let answers = futures::future::join_all(logins).await;
        over.store(true, Ordering::Relaxed);
        answers
    };
    let beside = refreshes(&mut client, &refresh, |_| over.load(Ordering::Relaxed));
    let (answers, beside) = tokio::join!(logins, beside);
    let (mut served, mut turned_away) = (Vec::new(), Vec::new());
    for (answer, time) in answers {
        match answer {
            Ok(()) => served.push(time),
            Err(reason) => {
                assert_eq!(reason, Reason::Overloaded);
                turned_away.push(time);
            }
        }
    }
    title(&format!("{BURST} logins at once"));
    row("served", served);
    row("turned away", turned_away);
    row("RefreshToken, alone", alone);
    row("RefreshToken, meanwhile", beside);
    let (after, most) = (service.memory_mib("VmRSS"), service.memory_mib("VmHWM"));
    println!("  memory: {idle} MiB idle, {one} after one login, {most} at most, {after} after the burst");
    service.stop().await;
}

/// Times of refreshing, one after the other.
async fn refreshes(
    client: &mut AuthServiceClient<Channel>,
    token: &str,
    enough: impl Fn(usize) -> bool,
) -> Vec<Duration> {
    let mut times = Vec::new();
    while times.is_empty() || !enough(times.len()) {
        let begun = Instant::now();
        client.refresh_token(bearing(token, RefreshTokenRequest {})).await.expect("it is refreshed");
        times.push(begun.elapsed());
    }
    times
}
