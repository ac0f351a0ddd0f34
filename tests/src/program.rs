//! The real programs, each a process of its own.

use std::{net::SocketAddr, path::Path, process::ExitStatus, time::Duration};

use tempfile::TempDir;
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    PATIENCE, model_dir, procfs,
    running::{self, built},
};

/// A running program, which is killed when this is dropped.
#[derive(Debug)]
pub struct Program {
    /// Where it serves.
    pub address: SocketAddr,
    process: Child,
    /// What it tells of its state by the protocol of sd_notify.
    notices: UnixDatagram,
    /// Holds the socket.
    _folder: TempDir,
}

impl Program {
    /// Starts a program with these environment variables, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not, or was not built.
    pub async fn start(name: &str, environment: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let socket = folder.path().join("notices");
        let notices = UnixDatagram::bind(&socket).expect("the folder is ours");
        let private = ["AUTH_PRIVATE_LISTEN", "EMBEDDER_PRIVATE_LISTEN", "GATEWAY_PRIVATE_LISTEN"];
        let process = Command::new(built().join(name))
            .env("LOG_LEVEL", "warn")
            .envs(private.map(|variable| (variable, "127.0.0.1:0")))
            .envs(environment.iter().copied())
            .env("NOTIFY_SOCKET", &socket)
            .kill_on_drop(true)
            .spawn()
            .expect("the programs are built: run `make build`");
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut program = Self { address, process, notices, _folder: folder };
        program.address = program.notice("X_MUSE_LISTENING").await.parse().expect("an address");
        program
    }

    /// An auth service at an address, with the database in `folder`.
    pub async fn auth(address: SocketAddr, folder: &Path) -> Self {
        let database = folder.join("muse.db");
        let database = database.to_str().expect("the path is UTF-8");
        Self::start("muse-auth", &[("AUTH_LISTEN", &address.to_string()), ("DATABASE_URL", database)]).await
    }

    /// An embedder at an address, with one core.
    pub async fn embedder(address: SocketAddr, auth: SocketAddr) -> Self {
        let model = model_dir();
        let environment = [
            ("EMBEDDER_LISTEN", &*address.to_string()),
            ("MUSE_MODEL_DIR", model.to_str().expect("the path is UTF-8")),
            ("AUTH_URL", &format!("http://{auth}")),
            ("MUSE_THREADS", "1"),
        ];
        Self::start("muse-embedder", &environment).await
    }

    /// A gateway at an address.
    pub async fn gateway(
        address: SocketAddr,
        auth: SocketAddr,
        embedders: &[SocketAddr],
        environment: &[(&str, &str)],
    ) -> Self {
        let urls: Vec<String> = embedders.iter().map(|embedder| format!("http://{embedder}")).collect();
        let own = [
            ("GATEWAY_LISTEN", &*address.to_string()),
            ("AUTH_URL", &format!("http://{auth}")),
            ("EMBEDDER_URL", &urls.join(",")),
        ];
        Self::start("muse-gateway", &[&own, environment].concat()).await
    }

    /// Waits until it says that it is ready.
    pub async fn ready(&self) {
        self.notice("READY").await;
    }

    /// The value that it tells for `key`; what it says before that is passed over.
    async fn notice(&self, key: &str) -> String {
        let told = async {
            let mut buffer = [0; 4096];
            loop {
                let length = self.notices.recv(&mut buffer).await.expect("the socket is ours");
                let text = String::from_utf8_lossy(&buffer[..length]);
                let mut lines = text.lines().filter_map(|line| line.split_once('='));
                if let Some((_, value)) = lines.find(|(name, _)| *name == key) {
                    return value.to_owned();
                }
            }
        };
        timeout(PATIENCE, told).await.expect("it says so in time")
    }

    /// Sends it a signal, as in `-TERM`.
    ///
    /// # Panics
    ///
    /// If it runs no more.
    pub fn signal(&self, signal: &str) {
        running::signal(&self.process, signal);
    }

    /// Time that it has spent on processors.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.process.id().map_or(Duration::ZERO, procfs::cpu_time)
    }

    /// Waits until it has ended.
    pub async fn ended(mut self) -> ExitStatus {
        timeout(PATIENCE, self.process.wait()).await.expect("it ends").expect("it was started here")
    }

    /// Asks it to end, which must go well.
    pub async fn stop(self) {
        self.signal("-TERM");
        let status = self.ended().await;
        assert!(status.success(), "{status}");
    }
}
