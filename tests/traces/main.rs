//! Requests followed through the real programs: by their ids in the logs, and by their spans at a collector. And what users
//! send, which is found in neither.

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
        let line = running.says("ready after").await;
        let url = line.split_whitespace().find_map(|word| word.strip_prefix("http://"));
        let gateway = url.expect("it says where").parse().expect("an address");
        Self { running, gateway, http: HttpClient::new(gateway) }
    }

    /// A token of the admin.
    async fn log_in(&self) -> String {
        self.http.log_in("admin", "admin", &[]).await.text_of("access_token")
    }

    /// The lines of the log that are of a request with this id.
    fn lines_of(&self, id: &str) -> Vec<Value> {
        let log = self.running.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }
}
