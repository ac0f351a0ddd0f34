//! Requests followed through the real programs: by their ids in the logs, and by their spans at a collector. And what users
//! send, which is found in neither.

mod collector;
mod ids;
mod leaks;
mod spans;

use std::net::SocketAddr;

use muse_tests::{
    http_client::HttpClient,
    running::{Running, stack},
};
use serde_json::{Value, json};

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
        let answer = self.log_in_with("admin", &[]).await;
        answer.json()["access_token"].as_str().expect("a token").to_owned()
    }

    async fn log_in_with(&self, password: &str, headers: &[(&str, &str)]) -> muse_tests::http_client::Answer {
        let body = json!({ "username": "admin", "password": password }).to_string();
        let headers = [&[("content-type", "application/json")], headers].concat();
        self.http.send("POST", "/login", &headers, &body).await
    }

    /// The lines of the log that are of a request with this id.
    fn lines_of(&self, id: &str) -> Vec<Value> {
        let log = self.running.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["span"]["request_id"] == id).collect()
    }
}
