//! Durability: a service that is killed has stored all changes that it acknowledged.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use muse_auth::{Config, Database};
use muse_proto::v1::{LoginRequest, RevokeTokenRequest, auth_service_client::AuthServiceClient};
use secrecy::ExposeSecret;

use crate::harness::{PASSWORD, Service, channel, folder, revoked, with_token};

/// LoginMetrics, each with a revocation, that would be done were the service not killed.
const LOGINS: usize = 200;
const CLIENTS: usize = 16;

fn start(config: &Config) -> (Child, SocketAddr) {
    let database = match &config.database {
        Database::Sqlite(path) => path.display().to_string(),
        Database::Postgres(url) => url.expose_secret().to_owned(),
    };
    let mut service = Command::new(env!("CARGO_BIN_EXE_muse-auth"))
        .args(["--listen", "127.0.0.1:0", "--private-listen", "127.0.0.1:0", "--hash-threads", "2"])
        .env("DATABASE_URL", database)
        .env("ADMIN_PASSWORD", PASSWORD)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(service.stderr.take().unwrap()).lines().map_while(Result::ok);
    let line = lines.by_ref().find(|line| line.contains("listens")).unwrap();
    // Without colours, because it is written to a pipe.
    let address = line.split("address=").nth(1).unwrap().trim().parse().unwrap();
    // Otherwise a full pipe would block its log.
    std::thread::spawn(move || lines.for_each(drop));
    (service, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_changes_survive_a_kill() {
    let (_folder, config) = folder();
    let (process, address) = start(&config);
    let process = Mutex::new(process);
    let done = AtomicUsize::new(0);
    let client = async || {
        let mut stub = AuthServiceClient::new(channel(address));
        let mut answered = Vec::new();
        for _ in 0..LOGINS / CLIENTS {
            let login = LoginRequest { username: "admin".to_owned(), password: PASSWORD.to_owned() };
            let Ok(tokens) = stub.login(login).await else { break };
            let tokens = tokens.into_inner();
            let revoked = stub.revoke_token(with_token(RevokeTokenRequest {}, &tokens.access_token)).await;
            answered.push((tokens, revoked.is_ok()));
            if done.fetch_add(1, Ordering::Relaxed) == LOGINS / 2 {
                // SIGKILL.
                process.lock().unwrap().kill().unwrap();
            }
        }
        answered
    };
    let answered: Vec<_> =
        futures::future::join_all((0..CLIENTS).map(|_| client())).await.into_iter().flatten().collect();
    process.lock().unwrap().wait().unwrap();
    assert!((LOGINS / 2..LOGINS).contains(&answered.len()), "{}", answered.len());

    let service = Service::start(&config).await;
    for (tokens, was_revoked) in &answered {
        assert!(service.refresh(&tokens.refresh_token).await.is_ok());
        if *was_revoked {
            assert_eq!(service.revoke(&tokens.access_token).await, Err(revoked()));
        }
    }
    assert!(answered.iter().filter(|(_, was_revoked)| *was_revoked).count() >= LOGINS / 2);
    service.stop().await;
}
