//! A Postgres server that ends with the tests.

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use muse_auth::Database;
use muse_test_support::{Requirement, skip_all};
use secrecy::SecretString;
use tempfile::TempDir;

static SERVER: LazyLock<Server> = LazyLock::new(|| Server::start(5432, &["-c", "listen_addresses="], &[]));
static DATABASES: AtomicU32 = AtomicU32::new(0);

/// Debian's folder of the server's programs, which are not in `PATH`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// Runs the server until its standard input is closed, however the tests end.
const RUN: &str = r#"
    "$@" -D "$DATA" -k "$DATA" -c fsync=off -c max_connections=200 >"$DATA/log" 2>&1 &
    cat >/dev/null
    kill -INT $!
    wait $!
    rm -rf "$DATA"
"#;

pub(crate) struct Server {
    programs: PathBuf,
    data: PathBuf,
    port: u16,
    // The end of its standard input ends the server.
    _process: Child,
}

pub(crate) fn new_database(_: &TempDir) -> Database {
    let name = SERVER.new_database();
    let socket = SERVER.data.display();
    url(&format!("localhost/{name}?host={socket}"))
}

pub(crate) fn url(rest: &str) -> Database {
    Database::Postgres(SecretString::from(format!("postgres://postgres@{rest}")))
}

impl Server {
    /// Starts a server with these settings and these files in its folder.
    pub(crate) fn start(port: u16, settings: &[&str], files: &[(&str, &str)]) -> Self {
        let programs = programs()
            .unwrap_or_else(|| skip_all(Requirement::Postgres, "there is no server (Debian: postgresql)"));
        let data = tempfile::Builder::new().prefix("muse-postgres-").tempdir().unwrap().keep();
        let is_root =
            fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0);
        // The server refuses to run as root.
        let as_user: &[&str] = if is_root {
            &["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        } else {
            &[]
        };
        let change_owner = || {
            if is_root {
                run(Command::new("chown").args(["-R", "postgres:postgres"]).arg(&data));
            }
        };
        change_owner();
        let initdb = programs.join("initdb");
        let words: Vec<&str> = as_user.iter().copied().chain([initdb.to_str().unwrap()]).collect();
        run(Command::new(words[0])
            .args(&words[1..])
            .args(["-A", "trust", "-U", "postgres", "-N", "-D"])
            .arg(&data));
        for (name, text) in files {
            let path = data.join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        change_owner();

        let process = Command::new("sh")
            .args(["-c", RUN, "sh"])
            .args(as_user)
            .arg(programs.join("postgres"))
            .args(["-p", &port.to_string()])
            .args(settings)
            .env("DATA", &data)
            .current_dir("/")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let server = Self { programs, data, port, _process: process };
        server.wait();
        server
    }

    /// Creates a database and returns its name.
    pub(crate) fn new_database(&self) -> String {
        let name = format!("muse{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        run(self.client("createdb").args(["--username", "postgres", &name]));
        name
    }

    /// A client program of this server.
    fn client(&self, name: &str) -> Command {
        let mut client = Command::new(self.programs.join(name));
        client.arg("--host").arg(&self.data).args(["--port", &self.port.to_string()]);
        client
    }

    fn wait(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let ready = || self.client("pg_isready").arg("--quiet").status().unwrap().success();
        while !ready() {
            let log = || fs::read_to_string(self.data.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "Postgres does not start: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The folder with all programs that are needed.
fn programs() -> Option<PathBuf> {
    let versions =
        fs::read_dir(DEBIAN).into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let mut folders: Vec<PathBuf> = versions.collect();
    folders.sort();
    folders.reverse();
    folders.extend(env::split_paths(&env::var_os("PATH")?));
    let whole = |folder: &PathBuf| {
        ["initdb", "postgres", "createdb", "pg_isready"].iter().all(|program| folder.join(program).is_file())
    };
    folders.into_iter().find(whole)
}

fn run(command: &mut Command) {
    let output = command.current_dir(Path::new("/")).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
