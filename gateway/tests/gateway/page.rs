//! How the web page and its files are served.

use http::StatusCode;

use crate::harness::{Backend, Gateway, HttpResponse};

fn text(response: &HttpResponse) -> String {
    String::from_utf8(response.body.to_vec()).unwrap()
}

/// The relative URLs in the attributes of the page.
fn urls(html: &str) -> Vec<String> {
    let values = html.split("src=\"").skip(1).chain(html.split("href=\"").skip(1));
    let values = values.filter_map(|rest| rest.split_once('"')).map(|(value, _)| value.to_owned());
    values.filter(|value| value.starts_with("page/")).collect()
}

#[tokio::test]
async fn page_names_its_files_by_their_hash() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let page = gateway.send("GET", "/", &[]).await;
    assert_eq!((page.status, page.header("content-type")), (StatusCode::OK, "text/html; charset=utf-8"));
    let html = text(&page);
    assert!(!html.contains("{{"), "{html}");
    let urls = urls(&html);
    assert!(
        urls.iter().any(|url| url.ends_with(".css")) && urls.iter().any(|url| url.ends_with(".js")),
        "{urls:?}"
    );
    for url in &urls {
        let file = gateway.send("GET", &format!("/{url}"), &[]).await;
        let expected = if url.ends_with(".js") { "text/javascript" } else { "text/css" };
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, expected), "{url}");
        assert_eq!(file.header("cache-control"), "public, max-age=31536000, immutable", "{url}");
        assert!(file.header("content-security-policy").contains("trusted-types worker"), "{url}");
    }
    let (folder, _) = urls[0].rsplit_once('/').unwrap();
    let (_, hash) = folder.split_once('/').unwrap();
    let hash = hash.split('/').next().unwrap();
    for nothing in [
        "page/other/style.css",
        &format!("page/{hash}/"),
        &format!("page/{hash}/none.js"),
        &format!("page/{hash}/../../Cargo.toml"),
        &format!("page/{hash}/index.html"),
        &format!("page/{hash}/%ff"),
    ] {
        let missing = gateway.send("GET", &format!("/{nothing}"), &[]).await;
        assert_eq!(missing.status, StatusCode::NOT_FOUND, "{nothing}");
        assert_eq!(missing.header("cache-control"), "no-store", "{nothing}");
    }
    assert_eq!(gateway.send("POST", "/", &[]).await.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn unchanged_page_is_not_sent_again() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &[]).await;
    let etag = gateway.send("GET", "/", &[]).await.header("etag").to_owned();
    for known in [etag.clone(), format!("W/{etag}"), format!("\"old\", {etag}"), "*".to_owned()] {
        let response = gateway.send("GET", "/", &[("if-none-match", &known)]).await;
        assert_eq!((response.status, response.body.len()), (StatusCode::NOT_MODIFIED, 0), "{known}");
    }
    let response = gateway.send("GET", "/", &[("if-none-match", "\"old\"")]).await;
    assert_eq!(response.status, StatusCode::OK);
}

#[tokio::test]
async fn option_disables_the_page() {
    let backend = Backend::start().await;
    let gateway = Gateway::ready(&backend, &["--page", "off"]).await;
    assert_eq!(gateway.send("GET", "/", &[]).await.status, StatusCode::NOT_FOUND);
    assert_eq!(gateway.send("GET", "/api/ready", &[]).await.status, StatusCode::OK);
}

#[tokio::test]
async fn page_knows_whether_cookies_are_enabled() {
    let backend = Backend::start().await;
    for (option, expected) in [("off", "off"), ("secure", "secure"), ("on", "on")] {
        let gateway = Gateway::ready(&backend, &["--cookies", option]).await;
        let html = text(&gateway.send("GET", "/", &[]).await);
        assert!(html.contains(&format!("content=\"{expected}\"")), "{html}");
    }
}
