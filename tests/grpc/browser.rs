//! gRPC-Web from a page in a browser, if one is installed.

use std::{net::SocketAddr, path::PathBuf, process::Stdio};

use muse_test_support::{Requirement, skip};
use muse_tests::{Stack, TIMEOUT};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::Command,
};

fn browser() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|program| program.is_file())
}

#[tokio::test(flavor = "multi_thread")]
async fn web_page_embeds_over_grpc_web() {
    let Some(browser) = browser() else {
        skip(Requirement::Chromium, "there is no browser");
        return;
    };
    let stack = Stack::start().await;
    let page = serve_page(stack.gateway.address).await;
    let results = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = results.local_addr().unwrap().port();
    let profile = tempfile::tempdir().unwrap();
    let _running = Command::new(browser)
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(["--remote-debugging-port=0", &format!("http://{page}/page#{port}")])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let result = tokio::time::timeout(TIMEOUT, reported(results)).await.expect("the page reports");
    let mut reported_values: Value = serde_json::from_str(&result).unwrap();
    // 512 floats, the tags and the count.
    assert!(reported_values["bytes"].take().as_u64().is_some_and(|bytes| bytes > 2048), "{result}");
    let expected = json!({
        "login": "0", "embed": "0", "bytes": null, "stream": "0", "answers": 2, "rejected": "16",
    });
    assert_eq!(reported_values, expected);
    stack.stop().await;
}

/// Serves the page and the gateway on one origin, like a reverse proxy.
async fn serve_page(gateway: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("the address is free");
    let address = listener.local_addr().expect("a bound listener has an address");
    tokio::spawn(async move {
        while let Ok((connection, _)) = listener.accept().await {
            tokio::spawn(answer(connection, gateway));
        }
    });
    address
}

async fn answer(mut connection: TcpStream, gateway: SocketAddr) {
    let mut start = [0; 9];
    if connection.peek(&mut start).await.is_ok() && start == *b"GET /page" {
        let page = include_str!("page.html");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\nconnection: close\r\n";
        let whole = format!("{head}content-length: {}\r\n\r\n{page}", page.len());
        let _ = connection.write_all(whole.as_bytes()).await;
    } else if let Ok(mut gateway) = TcpStream::connect(gateway).await {
        let _ = copy_bidirectional(&mut connection, &mut gateway).await;
    }
}

/// The JSON object that the page posts.
async fn reported(results: TcpListener) -> String {
    let (mut connection, _) = results.accept().await.expect("the page connects");
    let mut request = String::new();
    while !request.ends_with('}') {
        let mut more = [0; 4096];
        let length = connection.read(&mut more).await.expect("the page sends");
        assert!(length > 0, "{request}");
        request.push_str(std::str::from_utf8(&more[..length]).expect("the page sends text"));
    }
    request.split_once("\r\n\r\n").expect("a request has a body").1.to_owned()
}
