//! The real programs as processes.

use std::{net::SocketAddr, path::Path, process::ExitStatus, time::Duration};

use tempfile::TempDir;
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    time::timeout,
};

use crate::{
    TIMEOUT, model_dir, procfs,
    running::{self, built},
};

/// A running program. Dropping it kills the process.
#[derive(Debug)]
pub struct Program {
    /// The address of its public port.
    pub address: SocketAddr,
    process: Child,
    /// The socket of its sd_notify messages.
    notices: UnixDatagram,
    /// The folder of the socket.
    _folder: TempDir,
}

impl Program {
    /// Starts a program with these environment variables, and waits until it listens.
    ///
    /// # Panics
    ///
    /// If it does not listen, or the program does not exist.
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

    /// Starts an auth service at an address, with the database in `folder`.
    pub async fn auth(address: SocketAddr, folder: &Path) -> Self {
        let database = folder.join("muse.db");
        let database = database.to_str().expect("the path is UTF-8");
        Self::start("muse-auth", &[("AUTH_LISTEN", &address.to_string()), ("DATABASE_URL", database)]).await
    }

    /// Starts an embedder at an address, with one core.
    pub async fn embedder(address: SocketAddr, auth: SocketAddr) -> Self {
        Self::embedder_with(address, auth, &model_dir()).await
    }

    /// As [`Program::embedder`], with the model in a directory.
    pub async fn embedder_with(address: SocketAddr, auth: SocketAddr, model: &Path) -> Self {
        let environment = [
            ("EMBEDDER_LISTEN", &*address.to_string()),
            ("MUSE_MODEL_DIR", model.to_str().expect("the path is UTF-8")),
            ("AUTH_URL", &format!("http://{auth}")),
            ("MUSE_THREADS", "1"),
        ];
        Self::start("muse-embedder", &environment).await
    }

    /// Starts a gateway at an address.
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

    /// Waits until it reports that it is ready.
    pub async fn ready(&self) {
        self.notice("READY").await;
    }

    /// Waits for the sd_notify message `key` and returns its value; skips other messages.
    async fn notice(&self, key: &str) -> String {
        let received = async {
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
        timeout(TIMEOUT, received).await.expect("it reports it in time")
    }

    /// Its process id.
    ///
    /// # Panics
    ///
    /// If the process has exited.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id().expect("it runs")
    }

    /// Sends a signal, such as `-TERM`.
    ///
    /// # Panics
    ///
    /// If the process has exited.
    pub fn signal(&self, signal: &str) {
        running::signal(&self.process, signal);
    }

    /// CPU time of the process.
    #[must_use]
    pub fn cpu_time(&self) -> Duration {
        self.process.id().map_or(Duration::ZERO, procfs::cpu_time)
    }

    /// Waits until it has exited.
    pub async fn ended(mut self) -> ExitStatus {
        timeout(TIMEOUT, self.process.wait()).await.expect("it ends").expect("it was started here")
    }

    /// Stops it with SIGTERM. Panics if the exit status is not 0.
    pub async fn stop(self) {
        self.signal("-TERM");
        let status = self.ended().await;
        assert!(status.success(), "{status}");
    }
}
