//! The real programs with access to their logs.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tokio::process::{Child, Command};

use crate::{TIMEOUT, model_dir, root};

/// The folder of the programs of this build.
///
/// # Panics
///
/// If the test is not in a build folder.
#[must_use]
pub fn built() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a program");
    test.ancestors().nth(2).expect("it lies in target/release/deps").to_owned()
}

/// A program with a clean environment that has only the variables it needs to run.
fn bare(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
    for name in ["PATH", "HOME", "LD_LIBRARY_PATH"] {
        command.envs(std::env::var_os(name).map(|value| (name, value)));
    }
    command
}

/// One of the services' programs.
#[must_use]
pub fn program(name: &str) -> Command {
    let mut command = bare(built().join(name));
    for service in ["AUTH", "EMBEDDER", "GATEWAY"] {
        command.env(format!("{service}_PRIVATE_LISTEN"), "127.0.0.1:0");
    }
    command
}

/// A running program and its JSON log. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    process: Child,
    log: PathBuf,
    _folder: TempDir,
}

impl Running {
    /// Starts `command` with its log in a temporary folder.
    ///
    /// # Panics
    ///
    /// If the program does not exist.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let log = folder.path().join("log");
        let file = File::create(&log).expect("the folder is ours");
        let process = command
            .current_dir(folder.path())
            .env("LOG_FORMAT", "json")
            .stdout(file.try_clone().expect("the log can be shared"))
            .stderr(file)
            .spawn()
            .expect("the program is built");
        Self { process, log, _folder: folder }
    }

    /// The log.
    ///
    /// # Panics
    ///
    /// If the log cannot be read.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).expect("there is a log")
    }

    /// Waits for a line of the log that contains `text` and returns it.
    pub async fn wait_for_log(&self, text: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            assert!(Instant::now() < end, "{text:?} is not in the log:\n{log}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The address on which it listens, from the log.
    pub async fn address(&self) -> String {
        let line = self.wait_for_log(" listens").await;
        let (_, address) = line.split_once("\"address\":\"").expect("the line has the address");
        address.split('"').next().unwrap_or_default().to_owned()
    }

    /// Sends SIGTERM and waits until the process has exited.
    ///
    /// # Panics
    ///
    /// If the process has exited already.
    pub async fn stop(&mut self) {
        signal(&self.process, "-TERM");
        self.wait_for_exit().await;
    }

    /// Waits until the process exits and returns its status.
    pub async fn wait_for_exit(&mut self) -> ExitStatus {
        tokio::time::timeout(TIMEOUT, self.process.wait()).await.expect("it ends").expect("it has a status")
    }
}

/// Sends a signal, such as `-TERM`, to a process.
pub(crate) fn signal(process: &Child, signal: &str) {
    let process = process.id().expect("it runs").to_string();
    let sent = std::process::Command::new("kill").args([signal, &process]).status();
    assert!(sent.is_ok_and(|status| status.success()), "kill {signal} {process}");
}

/// Starts the auth service on a free port.
#[must_use]
pub fn auth(settings: &[(&str, &Path)]) -> Running {
    let mut command = program("muse-auth");
    Running::start(command.env("AUTH_LISTEN", "127.0.0.1:0").envs(settings.iter().copied()))
}

/// The command of the launcher for all services, after a script that sets variables.
#[must_use]
pub fn stack(script: &str) -> Command {
    let launcher = "exec python3 \"$@\"";
    let mut command = bare("bash");
    command.args(["-euc", &format!("{script}\n{launcher}"), "bash"]).arg(root().join("deploy/local.py"));
    command.args([built(), model_dir(), PathBuf::from(".")]).env("PORT", "0");
    command
}
