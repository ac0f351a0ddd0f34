//! The queries of `deploy/observe` match the metrics of a running stack, and return results on
//! Prometheus, if it is installed.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Output,
    time::Duration,
};

use muse_proto::v1::{AddUserRequest, EmbedRequest, Role};
use muse_test_support::{Requirement, skip};
use muse_tests::{Stack, TIMEOUT, bearing, http_client::HttpClient, root, until};
use serde_json::{Value, json};
use tokio::process::{Child, Command};

const PASSWORD: &str = "a long enough passphrase";

fn observe() -> PathBuf {
    root().join("deploy/observe")
}

/// The body of `/metrics` of an admin port.
async fn metrics(admin_port: SocketAddr) -> String {
    let page = HttpClient::new(admin_port).send("GET", "/metrics", &[], "").await;
    assert_eq!((page.status.as_u16(), page.header("content-type")), (200, "text/plain; version=0.0.4"));
    String::from_utf8(page.body.to_vec()).expect("it is text")
}

/// Users of a stack.
struct Users {
    rest: HttpClient,
    admin: String,
    user: String,
}

impl Users {
    async fn of(stack: &Stack) -> Self {
        let rest = HttpClient::new(stack.gateway.address);
        let admin = stack.login().await.access_token;
        let request = AddUserRequest {
            username: "maria".to_owned(),
            password: PASSWORD.to_owned(),
            role: Role::User.into(),
        };
        stack.user_client().add_user(bearing(&admin, request)).await.expect("admin may add users");
        let user = rest.log_in("maria", PASSWORD, &[]).await.text_of("access_token");
        Self { rest, admin, user }
    }

    /// Sends requests of each kind.
    async fn send_requests(&self, stack: &Stack) {
        assert_eq!(self.rest.get("/embed?sentence=Hello", &self.user).await.status, 200);
        assert_eq!(self.rest.get("/tokenize?sentence=Hello", &self.admin).await.status, 200);
        assert_eq!(self.rest.get("/embed?sentence=Hello", "").await.status, 422);
        assert_eq!(self.rest.get("/no/such/path", "").await.status, 404);
        let input = json!({ "model": "text-embedding-3-small", "input": "Hello" });
        assert_eq!(self.rest.json("POST", "/v1/embeddings", &self.user, &input).await.status, 200);
        let wrong = self.rest.send("POST", "/login?username=maria&password=wrong", &[], "").await;
        // Login throttling rejects Maria's attempts after some failures.
        assert!(matches!(wrong.status.as_u16(), 401 | 429), "{}", wrong.status);
        let request = EmbedRequest { sentences: vec!["Hello".to_owned(); 3], ..EmbedRequest::default() };
        stack.embedder_client().embed(bearing(&self.admin, request)).await.expect("vectors");
    }
}

/// Runs a program with `input`, if it is installed.
async fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Option<Output> {
    let folder = tempfile::tempdir().expect("there is a place for temporary files");
    let file = folder.path().join("input");
    fs::write(&file, input.unwrap_or_default()).expect("the folder is the test's own");
    let mut command = Command::new(program);
    command.args(arguments).stdin(fs::File::open(&file).expect("it was written")).kill_on_drop(true);
    let output = tokio::time::timeout(TIMEOUT, command.output()).await.expect("it ends");
    match output {
        Err(failure) if failure.kind() == std::io::ErrorKind::NotFound => {
            skip(Requirement::Prometheus, format_args!("{program} is not installed"));
            None
        }
        output => Some(output.expect("it runs")),
    }
}

fn assert_success(what: &str, output: &Output) {
    let printed = [&output.stdout[..], &output.stderr].concat();
    assert!(output.status.success(), "{what}:\n{}", String::from_utf8_lossy(&printed));
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_match_the_exported_metrics() {
    let stack = Stack::start().await;
    let users = Users::of(&stack).await;
    users.send_requests(&stack).await;
    let pages = tempfile::tempdir().unwrap();
    let write = |job: &str, text: &str| fs::write(pages.path().join(format!("{job}.prom")), text).unwrap();
    let (auth, embedder) = (metrics(stack.auth.admin_port).await, metrics(stack.embedder.admin_port).await);
    let Stack { data: _data, auth: auth_service, embedder: embedder_service, gateway } = stack;
    embedder_service.stop().await;
    assert_eq!(users.rest.get("/embed?sentence=Hello", &users.user).await.status, 503);
    let gateway_page = metrics(gateway.admin_port).await;
    gateway.stop().await;
    auth_service.stop().await;
    for (job, page) in [("auth", &auth), ("embedder", &embedder), ("gateway", &gateway_page)] {
        write(job, page);
        if let Some(checked) = run("promtool", &["check", "metrics"], Some(page)).await {
            assert_success(job, &checked);
        }
    }

    let (script, observed) = (root().join("tests/python/observe.py"), observe());
    let arguments = [script.as_path(), &observed, pages.path()].map(|path| path.to_str().expect("UTF-8"));
    let compared = run("python3", &arguments, None).await.expect("there is a python3");
    assert_success("deploy/observe", &compared);
    for (kind, name) in [("config", "prometheus.yml"), ("rules", "rules.yml")] {
        let file = observe().join(name);
        if let Some(checked) = run("promtool", &["check", kind, file.to_str().expect("UTF-8")], None).await {
            assert_success(name, &checked);
        }
    }

    // Some values must equal the number of requests.
    for (page, line) in [
        (&gateway_page, r#"muse_requests_total{route="/embed",status="200",user="user"} 1"#),
        (&gateway_page, r#"muse_requests_total{route="/embed",status="422",user="anonymous"} 1"#),
        (&gateway_page, r#"muse_requests_total{route="/embed",status="503",user="user"} 1"#),
        (
            &gateway_page,
            r#"muse_requests_total{route="/muse.v1.EmbedderService/Embed",status="OK",user="admin"} 1"#,
        ),
        (&gateway_page, r#"muse_requests_total{route="other",status="404",user="anonymous"} 1"#),
        (&gateway_page, r#"muse_request_duration_seconds_count{route="/tokenize"} 1"#),
        (
            &embedder,
            r#"muse_requests_total{route="/muse.v1.EmbedderService/Embed",status="OK",user="user"} 2"#,
        ),
        (&embedder, "muse_sentences_total 5"),
        (&embedder, "muse_queue_tokens 0"),
        (&embedder, r#"muse_admissions_refused_total{reason="room"} 0"#),
        (&auth, r#"muse_logins_total{outcome="ok"} 2"#),
        (&auth, r#"muse_logins_total{outcome="failed"} 1"#),
        (&auth, "muse_password_hash_queue_length 0"),
    ] {
        assert!(page.lines().any(|other| other == line), "{line}\nis not in\n{page}");
    }
}

/// A Prometheus that scrapes a stack every second, with the job names of the compose stack.
struct Prometheus {
    _process: Child,
    client: HttpClient,
}

impl Prometheus {
    async fn start(stack: &Stack, folder: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let address = listener.local_addr().expect("it has an address");
        drop(listener);
        let jobs = [("auth", &stack.auth), ("embedder", &stack.embedder), ("gateway", &stack.gateway)];
        let jobs = jobs.map(|(name, service)| {
            json!({ "job_name": name, "static_configs": [{ "targets": [service.admin_port.to_string()] }] })
        });
        let config = json!({
            "global": { "scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s" },
            "rule_files": [observe().join("rules.yml")],
            "scrape_configs": jobs,
        });
        // JSON is YAML.
        let file = folder.join("prometheus.yml");
        fs::write(&file, config.to_string()).expect("the folder is the test's own");
        let log = fs::File::create(folder.join("log")).expect("the folder is the test's own");
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(log.try_clone().expect("a file"))
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .expect("prometheus is installed");
        let client = HttpClient::new(address);
        until(async || {
            let answer = client.try_send("GET", "/-/ready", &[], "").await;
            answer.ok().filter(|answer| answer.status == 200)
        })
        .await;
        Self { _process: process, client }
    }

    /// Returns the results of a query.
    async fn query(&self, query: &str) -> Vec<Value> {
        let form = form_urlencoded::Serializer::new(String::new()).append_pair("query", query).finish();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let answer = self.client.send("POST", "/api/v1/query", &headers, &form).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.json());
        answer.json()["data"]["result"].as_array().cloned().unwrap_or_default()
    }
}

/// The queries of the dashboard, with an interval of several scrapes.
fn queries() -> Vec<String> {
    let text =
        fs::read_to_string(observe().join("grafana/dashboards/muse.json")).expect("there is a dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("it is JSON");
    let panels = dashboard["panels"].as_array().expect("it has panels");
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    targets
        .map(|target| target["expr"].as_str().expect("a query").replace("$__rate_interval", "10s"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_returns_results_for_the_queries() {
    if run("prometheus", &["--version"], None).await.is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let stack = Stack::start().await;
    let users = Users::of(&stack).await;
    let prometheus = Prometheus::start(&stack, folder.path()).await;
    let mut missing = queries();
    assert!(missing.len() > 20);
    let all_found = async {
        while !missing.is_empty() {
            users.send_requests(&stack).await;
            let mut still = Vec::new();
            for query in missing.drain(..) {
                if prometheus.query(&query).await.is_empty() {
                    still.push(query);
                }
            }
            missing = still;
            // Rates require further scrapes, one per second.
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    };
    let in_time = tokio::time::timeout(TIMEOUT, all_found).await;
    assert!(in_time.is_ok(), "no results for {missing:#?}");

    let rules = prometheus.client.send("GET", "/api/v1/rules", &[], "").await.json();
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("there are rules").clone();
    assert!(rules.len() > 5);
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        // This test logs in with many wrong passwords.
        assert!(rule["state"] == "inactive" || rule["name"] == "MusePasswordsGuessed", "{rule}");
    }
    stack.stop().await;
}
