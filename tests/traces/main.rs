//! Request ids in logs, spans at a collector, and the absence of users' texts in both, with the
//! real programs.

mod audit;
mod collector;
mod ids;
mod panic_hook;
mod spans;

use std::net::SocketAddr;

use muse_tests::{
    http_client::HttpClient,
    running::{Running, stack},
};
use serde_json::Value;

/// A running stack.
struct Services {
    running: Running,
    gateway: SocketAddr,
    http: HttpClient,
}

impl Services {
    async fn start(environment: &[(&str, &str)]) -> Self {
        let running = Running::start(stack("").envs(environment.iter().copied()));
        let line = running.wait_for_log("ready after").await;
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let gateway = url.expect("the line contains the URL").parse().expect("an address");
        Self { running, gateway, http: HttpClient::new(gateway) }
    }

    /// Logs in as admin and returns an access token.
    async fn log_in(&self) -> String {
        self.http.log_in("admin", "admin", &[]).await.text_of("access_token")
    }

    /// The log lines of the request with this id.
    fn lines_of(&self, id: &str) -> Vec<Value> {
        let log = self.running.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }
}
