//! The three programs as processes, with measurements from `/proc` and their admin ports.

use std::{
    collections::BTreeSet,
    env, fs,
    fs::File,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::{Duration, Instant},
};

use muse_proto::v1::{
    AddUserRequest, LoginRequest, LoginResponse, Role, auth_service_client::AuthServiceClient,
    user_service_client::UserServiceClient,
};
use tempfile::TempDir;
use tokio::{
    net::UnixDatagram,
    process::{Child, Command},
    sync::watch,
    time::timeout,
};
use tonic::transport::{Channel, Endpoint};

use super::{PASSWORD, cgroup::Cgroup};
use crate::{TIMEOUT, bearing, channel, http_client::HttpClient, model_dir, running};

/// Environment variable with the folder of the programs; by default those of the test's build.
const PROGRAMS: &str = "MUSE_PROGRAMS";

/// The sd_notify messages of a program.
#[derive(Debug, Default, Clone)]
struct Notices {
    address: Option<SocketAddr>,
    admin_port: Option<SocketAddr>,
    ready: bool,
}

/// A running program. Dropping it kills the process.
#[derive(Debug)]
pub struct Process {
    /// The name of the program.
    pub name: &'static str,
    /// The address of its public port.
    pub address: SocketAddr,
    /// The address of its admin port.
    pub admin_port: SocketAddr,
    pid: u32,
    child: Child,
    notices: watch::Receiver<Notices>,
    folder: TempDir,
}

impl Process {
    /// Starts a program with these environment variables, optionally in a memory cgroup, and waits
    /// until it listens.
    ///
    /// # Panics
    ///
    /// If it does not listen in time.
    pub async fn start(
        programs: &Path,
        name: &'static str,
        environment: &[(&str, &str)],
        cgroup: Option<&Cgroup>,
    ) -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        let socket = folder.path().join("notices");
        let listener = UnixDatagram::bind(&socket).expect("the folder is ours");
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let program = programs.join(name);
        let mut command = match cgroup {
            None => Command::new(&program),
            Some(cgroup) => {
                // The shell enters the cgroup before exec, so all memory of the program is charged
                // to it.
                let mut shell = Command::new("sh");
                shell.args(["-c", "echo $$ > \"$0\" && exec \"$1\""]).arg(cgroup.processes()).arg(&program);
                shell
            }
        };
        let private = ["AUTH_PRIVATE_LISTEN", "EMBEDDER_PRIVATE_LISTEN", "GATEWAY_PRIVATE_LISTEN"];
        let child = command
            .env("LOG_LEVEL", "warn")
            .envs(private.map(|variable| (variable, "127.0.0.1:0")))
            .envs(environment.iter().copied())
            .env("NOTIFY_SOCKET", &socket)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log can be shared"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|failure| panic!("{}: {failure}: run `make build`", program.display()));
        let pid = child.id().expect("it was started now");
        let (sender, notices) = watch::channel(Notices::default());
        tokio::spawn(receive_notices(listener, sender));
        let unbound = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut process = Self { name, address: unbound, admin_port: unbound, pid, child, notices, folder };
        let bound =
            process.notices.wait_for(|notices| notices.address.is_some() && notices.admin_port.is_some());
        let bound = timeout(TIMEOUT, bound).await.map(|bound| bound.map(|notices| notices.clone()));
        let Ok(Ok(Notices { address: Some(address), admin_port: Some(admin_port), .. })) = bound else {
            panic!("{name} does not listen:\n{}", process.log());
        };
        (process.address, process.admin_port) = (address, admin_port);
        process
    }

    /// Waits until it reports that it is ready.
    ///
    /// # Panics
    ///
    /// If it does not become ready in time.
    pub async fn ready(&self) {
        let mut notices = self.notices.clone();
        let ready = timeout(TIMEOUT, notices.wait_for(|notices| notices.ready)).await;
        assert!(matches!(ready, Ok(Ok(_))), "{} does not become ready:\n{}", self.name, self.log());
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The exit status, if the process has exited.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// A field of `/proc/PID/status` in bytes: `VmRSS`, or `VmHWM` for the peak since
    /// [`Process::reset_peak`].
    ///
    /// # Panics
    ///
    /// If the process does not run.
    #[must_use]
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let line = line.unwrap_or_else(|| panic!("{} does not run:\n{}", self.name, self.log()));
        let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
        kib << 10
    }

    /// Resident memory in bytes.
    #[must_use]
    pub fn resident(&self) -> u64 {
        self.memory("VmRSS")
    }

    /// The peak of the resident memory since [`Process::reset_peak`], in bytes.
    #[must_use]
    pub fn peak(&self) -> u64 {
        self.memory("VmHWM")
    }

    /// Resets the peak of the resident memory to the current value.
    ///
    /// # Panics
    ///
    /// If the process does not run.
    pub fn reset_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("the process runs and is ours");
    }

    /// The socket inodes of the established connections to `port`.
    #[must_use]
    pub fn connections_to(&self, port: u16) -> BTreeSet<u64> {
        let own = socket_inodes(self.pid).unwrap_or_default();
        let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
        let established = table.lines().skip(1).filter_map(|line| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (_, remote) = fields.get(2)?.rsplit_once(':')?;
            let inode = fields.get(9)?.parse().ok()?;
            (*fields.get(3)? == "01" && u16::from_str_radix(remote, 16).ok()? == port).then_some(inode)
        });
        established.filter(|inode| own.contains(inode)).collect()
    }

    /// The sum of a metric over its labels.
    ///
    /// # Errors
    ///
    /// If the admin port does not respond within five seconds.
    pub async fn metric(&self, name: &str) -> Result<f64, String> {
        let http = HttpClient::new(self.admin_port);
        let answer = timeout(Duration::from_secs(5), http.try_send("GET", "/metrics", &[], "")).await;
        let answer = answer.map_err(|_| format!("{}: /metrics does not answer", self.name))??;
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let labelled = rest.starts_with('{') || rest.starts_with(' ');
            if labelled { rest.rsplit(' ').next()?.parse::<f64>().ok() } else { None }
        });
        Ok(values.sum())
    }

    /// Requests in flight.
    ///
    /// # Errors
    ///
    /// If the admin port does not respond within five seconds.
    pub async fn in_flight(&self) -> Result<f64, String> {
        self.metric("muse_requests_in_flight").await
    }

    /// Sends a signal, such as `-TERM`.
    pub fn signal(&self, signal: &str) {
        running::signal(&self.child, signal);
    }

    /// Stops the process with SIGTERM and returns its exit status.
    pub async fn stop(mut self) -> ExitStatus {
        self.signal("-TERM");
        timeout(TIMEOUT, self.child.wait()).await.expect("it ends").expect("it was started here")
    }
}

/// The socket inodes of a process.
fn socket_inodes(pid: u32) -> io::Result<BTreeSet<u64>> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd"))?;
    let links = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok());
    let inode = |link: PathBuf| link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    Ok(links.filter_map(inode).collect())
}

/// Receives sd_notify messages until the socket fails.
async fn receive_notices(socket: UnixDatagram, notices: watch::Sender<Notices>) {
    let mut buffer = [0; 4096];
    while let Ok(length) = socket.recv(&mut buffer).await {
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        notices.send_modify(|notices| {
            for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
                match name {
                    "X_MUSE_LISTENING" => notices.address = value.parse().ok(),
                    "X_MUSE_PRIVATE" => notices.admin_port = value.parse().ok(),
                    "READY" => notices.ready = true,
                    _ => {}
                }
            }
        });
    }
}

/// Settings of the programs.
#[derive(Debug, Default)]
pub struct Settings<'a> {
    /// Folder of the programs; by default `MUSE_PROGRAMS`, or the folder of this build.
    pub programs: Option<PathBuf>,
    /// Number of embedders; one by default.
    pub embedders: usize,
    /// Additional environment variables of all programs.
    pub environment: &'a [(&'a str, &'a str)],
    /// Memory cgroups of auth, embedder and gateway.
    pub cgroups: Option<&'a [Cgroup; 3]>,
}

/// The running programs.
#[derive(Debug)]
pub struct Stack {
    /// The auth service.
    pub auth: Process,
    /// The embedders.
    pub embedders: Vec<Process>,
    /// The gateway.
    pub gateway: Process,
    /// An access token of admin.
    pub admin: String,
    data: TempDir,
}

impl Stack {
    /// Starts the programs and waits until they are ready.
    pub async fn start(settings: &Settings<'_>) -> Self {
        let programs = settings.programs.clone().or_else(|| env::var_os(PROGRAMS).map(PathBuf::from));
        let programs = programs.unwrap_or_else(running::built);
        let data = tempfile::tempdir().expect("there is a place for temporary files");
        let database = data.path().join("muse.db");
        let [auth_group, embedder_group, gateway_group] =
            settings.cgroups.map_or([None; 3], |groups| groups.each_ref().map(Some));
        let with = |own: &[(&'static str, String)]| -> Vec<(String, String)> {
            let own = own.iter().map(|(name, value)| ((*name).to_owned(), value.clone()));
            let further = settings.environment.iter().map(|(name, value)| ((*name).into(), (*value).into()));
            own.chain(further).collect()
        };
        let auth = with(&[
            ("AUTH_LISTEN", "127.0.0.1:0".to_owned()),
            ("DATABASE_URL", database.display().to_string()),
        ]);
        let auth = Process::start(&programs, "muse-auth", &borrowed(&auth), auth_group).await;
        auth.ready().await;
        let auth_url = format!("http://{}", auth.address);
        let own = with(&[
            ("EMBEDDER_LISTEN", "127.0.0.1:0".to_owned()),
            ("MUSE_MODEL_DIR", model_dir().display().to_string()),
            ("AUTH_URL", auth_url.clone()),
        ]);
        let mut embedders = Vec::new();
        for _ in 0..settings.embedders.max(1) {
            embedders.push(Process::start(&programs, "muse-embedder", &borrowed(&own), embedder_group).await);
        }
        let urls: Vec<String> =
            embedders.iter().map(|embedder| format!("http://{}", embedder.address)).collect();
        let own = with(&[
            ("GATEWAY_LISTEN", "127.0.0.1:0".to_owned()),
            ("AUTH_URL", auth_url),
            ("EMBEDDER_URL", urls.join(",")),
        ]);
        let gateway = Process::start(&programs, "muse-gateway", &borrowed(&own), gateway_group).await;
        for process in embedders.iter().chain([&gateway]) {
            process.ready().await;
        }
        let admin = crate::login(channel(gateway.address)).await.access_token;
        Self { auth, embedders, gateway, admin, data }
    }

    /// All programs: auth, embedders, gateway.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        [&self.auth].into_iter().chain(&self.embedders).chain([&self.gateway])
    }

    /// The first embedder.
    #[must_use]
    pub fn embedder(&self) -> &Process {
        &self.embedders[0]
    }

    /// Adds a user with [`PASSWORD`] and logs in.
    ///
    /// # Panics
    ///
    /// If the auth service rejects the request.
    pub async fn add_user(&self, name: &str) -> LoginResponse {
        let request = AddUserRequest {
            username: name.to_owned(),
            password: PASSWORD.to_owned(),
            role: Role::User.into(),
        };
        let mut users = UserServiceClient::new(channel(self.gateway.address));
        users.add_user(bearing(&self.admin, request)).await.expect("admin may add users");
        login(channel(self.gateway.address), name).await.expect("the user may log in")
    }

    /// The connections between the services: gateway to auth and embedders, embedders to auth.
    #[must_use]
    pub fn upstream_connections(&self) -> BTreeSet<u64> {
        let auth = self.auth.address.port();
        let mut found = self.gateway.connections_to(auth);
        for embedder in &self.embedders {
            found.extend(self.gateway.connections_to(embedder.address.port()));
            found.extend(embedder.connections_to(auth));
        }
        found
    }

    /// Requests in flight of auth, embedders and gateway. NaN if the admin port does not respond.
    pub async fn in_flight(&self) -> Vec<f64> {
        let mut found = Vec::new();
        for process in self.processes() {
            found.push(process.in_flight().await.unwrap_or(f64::NAN));
        }
        found
    }

    /// Waits until each service has at most as many requests in flight as in `idle`, for at most
    /// `within`.
    ///
    /// # Errors
    ///
    /// The requests in flight of each service at the timeout.
    pub async fn settle(&self, idle: &[f64], within: Duration) -> Result<(), Vec<f64>> {
        let end = Instant::now() + within;
        loop {
            let now = self.in_flight().await;
            // NaN is not `<=` anything.
            if now.iter().zip(idle).all(|(now, idle)| now <= idle) {
                return Ok(());
            }
            if Instant::now() > end {
                return Err(now);
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Panics with the log if a program has exited.
    ///
    /// # Panics
    ///
    /// If a program has exited.
    pub fn assert_running(&mut self) {
        for process in [&mut self.auth].into_iter().chain(&mut self.embedders).chain([&mut self.gateway]) {
            if let Some(status) = process.exit_status() {
                panic!("{} ended with {status}:\n{}", process.name, process.log());
            }
        }
    }

    /// Stops all programs, the gateway first. All must exit with status 0.
    ///
    /// # Panics
    ///
    /// If a program exits with another status.
    pub async fn stop(self) {
        let Self { auth, embedders, gateway, data, .. } = self;
        for process in [gateway].into_iter().chain(embedders).chain([auth]) {
            let name = process.name;
            let status = process.stop().await;
            assert!(status.success(), "{name} ended with {status}");
        }
        drop(data);
    }
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

/// A channel to the gateway from a loopback address.
///
/// # Panics
///
/// If `from` is not an address of this machine.
#[must_use]
pub fn channel_from(from: IpAddr, gateway: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{gateway}")).expect("the address makes a URL");
    endpoint.local_address(Some(from)).connect_lazy()
}

/// Logs in a user with [`PASSWORD`].
///
/// # Errors
///
/// The status of the failed login.
pub async fn login(channel: Channel, name: &str) -> Result<LoginResponse, tonic::Status> {
    let request = LoginRequest { username: name.to_owned(), password: PASSWORD.to_owned() };
    Ok(AuthServiceClient::new(channel).login(request).await?.into_inner())
}
