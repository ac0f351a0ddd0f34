//! The stack under test, valid and invalid tokens of every kind, and an API key.

use std::{collections::HashMap, net::SocketAddr, time::Duration};

use muse_tests::{Stack, auth_config, channel, http_client::HttpClient, login, start_auth};
use serde_json::json;
use tokio::net::lookup_host;

/// A running stack in which admin / admin may log in.
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// The stack, if the test has started it.
    stack: Option<Stack>,
    http: HttpClient,
    /// By placeholder.
    tokens: HashMap<String, String>,
}

impl Target {
    /// Uses the stack at `MUSE_URL`, or starts one.
    pub(crate) async fn start() -> Self {
        if let Ok(url) = std::env::var("MUSE_URL") {
            let host = url.trim_start_matches("http://").trim_end_matches('/');
            let address = lookup_host(host).await.ok().and_then(|mut found| found.next());
            let address = address.unwrap_or_else(|| panic!("MUSE_URL must be http://HOST:PORT, not {url}"));
            return Self { address, stack: None, http: HttpClient::new(address), tokens: HashMap::new() };
        }
        let stack = Stack::start().await;
        let address = stack.gateway.address;
        let expired = expired(&stack).await;
        Self { address, stack: Some(stack), http: HttpClient::new(address), tokens: expired }
    }

    /// Replaces the placeholders in `text` by tokens. Returns None if one is not available.
    pub(crate) async fn fill(&mut self, text: &str) -> Option<String> {
        let mut filled = text.to_owned();
        while let Some((before, rest)) = filled.split_once('{') {
            let (name, after) = rest.split_once('}').expect("a placeholder ends");
            let token = self.token(name).await?;
            filled = format!("{before}{token}{after}");
        }
        Some(filled)
    }

    async fn token(&mut self, name: &str) -> Option<String> {
        if !self.tokens.contains_key(name) {
            match name {
                "expired-access" | "expired-refresh" => return None,
                "access" | "refresh" => {
                    let (access, refresh) = self.login().await;
                    self.tokens.extend([("access".to_owned(), access), ("refresh".to_owned(), refresh)]);
                }
                "badsig-access" | "badsig-refresh" => {
                    let (access, refresh) = self.login().await;
                    let token = if name.ends_with("access") { access } else { refresh };
                    self.tokens.insert(name.to_owned(), badly_signed(&token));
                }
                "revoked-access" | "refresh-after-other-was-revoked" => {
                    let (access, refresh) = self.login().await;
                    assert_eq!(self.http.post("/logout/access", &access).await.status, 200);
                    self.tokens.insert("revoked-access".to_owned(), access);
                    self.tokens.insert("refresh-after-other-was-revoked".to_owned(), refresh);
                }
                "revoked-refresh" | "access-after-other-was-revoked" => {
                    let (access, refresh) = self.login().await;
                    assert_eq!(self.http.post("/logout/refresh", &refresh).await.status, 200);
                    self.tokens.insert("revoked-refresh".to_owned(), refresh);
                    self.tokens.insert("access-after-other-was-revoked".to_owned(), access);
                }
                "key" | "key-id" => {
                    let access = self.login().await.0;
                    let key = json!({ "name": "conformance" });
                    let answer = self.http.json("POST", "/api/keys", &access, &key).await;
                    assert_eq!(answer.status, 201, "admin may create a key");
                    self.tokens.insert("key".to_owned(), answer.text_of("key"));
                    self.tokens.insert("key-id".to_owned(), answer.text_of("id"));
                }
                _ => panic!("{{{name}}} is no placeholder"),
            }
        }
        self.tokens.get(name).cloned()
    }

    /// Discards the pair of tokens, which may have been revoked.
    pub(crate) fn forget_pair(&mut self) {
        self.tokens.remove("access");
        self.tokens.remove("refresh");
    }

    async fn login(&self) -> (String, String) {
        let answer = self.http.log_in("admin", "admin", &[]).await;
        assert_eq!(answer.status, 200, "admin / admin may log in");
        (answer.text_of("access_token"), answer.text_of("refresh_token"))
    }

    pub(crate) async fn stop(self) {
        if let Some(stack) = self.stack {
            stack.stop().await;
        }
    }
}

/// Expired tokens from a second auth service with the same database and keys and a lifetime of one
/// second.
async fn expired(stack: &Stack) -> HashMap<String, String> {
    let mut config = auth_config(stack.data.path());
    config.access_token_lifetime = Duration::from_secs(1);
    config.refresh_token_lifetime = Duration::from_secs(1);
    let short_lived = start_auth(config).await;
    let tokens = login(channel(short_lived.address)).await;
    short_lived.stop().await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    HashMap::from([
        ("expired-access".to_owned(), tokens.access_token),
        ("expired-refresh".to_owned(), tokens.refresh_token),
    ])
}

/// The same token with another first character of its signature.
fn badly_signed(token: &str) -> String {
    let (message, signature) = token.rsplit_once('.').expect("a token has three parts");
    let other = if signature.starts_with('A') { 'B' } else { 'A' };
    format!("{message}.{other}{}", &signature[1..])
}
