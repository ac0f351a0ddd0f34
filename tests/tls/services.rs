//! Mutual TLS between the services.

use std::path::{Path, PathBuf};

use muse_tests::{
    certificates::{Authority, Files},
    running::{Running, auth, program},
    until,
};
use tokio::process::Command;

/// Calls a gRPC method with an empty message, by curl with the certificate in `own`.
async fn call(address: &str, ca: &Path, own: Option<&Files>) -> Result<(), String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--http2", "--include", "--cacert"]).arg(ca);
    if let Some(own) = own {
        curl.arg("--cert").arg(&own.cert).arg("--key").arg(&own.key);
    }
    curl.args(["-H", "content-type: application/grpc", "-H", "te: trailers", "--data-binary", "@-"])
        .arg(format!("https://{address}/grpc.health.v1.Health/Check"))
        .stdin(std::process::Stdio::from(empty_message()))
        .kill_on_drop(true);
    let output = curl.output().await.expect("curl is there");
    let (printed, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.success() && printed.contains("grpc-status: 0") {
        true => Ok(()),
        false => Err(format!("{printed}{complaint}")),
    }
}

/// A gRPC frame with an empty message.
fn empty_message() -> std::fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("there is a place for temporary files");
    file.write_all(&[0; 5]).and_then(|()| file.rewind()).expect("it can be written");
    file
}

fn settings<'a>(ca: &'a Path, own: &'a Files) -> [(&'static str, &'a Path); 3] {
    [("MUSE_TLS_CA", ca), ("MUSE_TLS_CERT", &own.cert), ("MUSE_TLS_KEY", &own.key)]
}

/// Two CAs, the services' own and a foreign one, and a temporary folder.
struct Fixture {
    folder: tempfile::TempDir,
    ours: Authority,
    foreign: Authority,
}

impl Fixture {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("there is a place for temporary files");
        Self { folder, ours: Authority::new("ours"), foreign: Authority::new("foreign") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

#[tokio::test]
async fn server_requires_a_client_certificate_of_its_ca() {
    let fixture = Fixture::new();
    let ca = fixture.ours.write(fixture.path("ca.pem"));
    let own = fixture.ours.issue(&["127.0.0.1"]).write(fixture.folder.path(), "auth");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;

    let gateway = fixture.ours.issue(&["gateway"]).write(fixture.folder.path(), "gateway");
    call(&address, &ca, Some(&gateway)).await.expect("certificates of the CA are accepted");

    for (own, reason) in [
        (None, "it presents no certificate"),
        (Some(fixture.foreign.issue(&["gateway"])), "its certificate is not signed by the CA in MUSE_TLS_CA"),
        (Some(fixture.ours.issue_expired(&["gateway"])), "its certificate has expired"),
    ] {
        let own = own.map(|pair| pair.write(fixture.folder.path(), "other"));
        let rejected = call(&address, &ca, own.as_ref()).await.expect_err(reason);
        assert!(rejected.contains("alert"), "the client gets an alert: {rejected}");
        let line = auth.wait_for_log(reason).await;
        assert!(line.contains("WARN") && line.contains("127.0.0.1:"), "{line}");
    }
    call(&address, &ca, Some(&gateway)).await.expect("valid certificates are still accepted");
}

#[tokio::test]
async fn client_verifies_the_name_and_ca_of_the_server() {
    let fixture = Fixture::new();
    let ca = fixture.ours.write(fixture.path("ca.pem"));
    let names = ["auth.internal", "localhost"];
    let own = fixture.ours.issue(&names).write(fixture.folder.path(), "auth");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;
    let port = address.rsplit(':').next().unwrap();
    let gateway = |url: &str, ca: &Path, own: &Files| {
        let mut command = program("muse-gateway");
        command.env("GATEWAY_LISTEN", "127.0.0.1:0").env("AUTH_URL", url);
        Running::start(command.envs(settings(ca, own)))
    };

    let ours = fixture.ours.issue(&["gateway"]).write(fixture.folder.path(), "gateway");
    let by_name = format!("https://localhost:{port}");
    gateway(&by_name, &ca, &ours).wait_for_log("synced with the auth service").await;
    let by_address = format!("https://127.0.0.1:{port}");
    gateway(&by_address, &ca, &ours).wait_for_log("its certificate is not for 127.0.0.1 but for").await;

    let foreign_ca = fixture.foreign.write(fixture.path("foreign-ca.pem"));
    let foreign = fixture.foreign.issue(&["gateway"]).write(fixture.folder.path(), "foreign");
    let line = gateway(&by_name, &foreign_ca, &foreign)
        .wait_for_log("its certificate is not signed by the CA in MUSE_TLS_CA")
        .await;
    assert!(line.contains(&format!("localhost:{port}")), "{line}");

    // The gateway trusts both CAs, but the auth service does not.
    let both = fixture.path("both.pem");
    let text = [&ca, &foreign_ca].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    gateway(&by_name, &both, &foreign).wait_for_log("it rejects our certificate").await;

    let plain = gateway(&format!("http://127.0.0.1:{port}"), &ca, &ours);
    auth.wait_for_log("it does not speak TLS").await;
    plain.wait_for_log("no connection to the auth service").await;
}

#[tokio::test]
async fn certificates_and_ca_are_reloaded_without_a_restart() {
    let fixture = Fixture::new();
    let ca = fixture.ours.write(fixture.path("ca.pem"));
    let own = fixture.ours.issue(&["127.0.0.1"]).write(fixture.folder.path(), "auth");
    let before = fixture.ours.issue(&["gateway"]).write(fixture.folder.path(), "before");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;
    call(&address, &ca, Some(&before)).await.expect("certificates of the CA are accepted");

    let old_ca = fixture.ours.write(fixture.path("old-ca.pem"));
    fixture.foreign.write(ca.clone());
    fixture.foreign.issue(&["127.0.0.1"]).write(fixture.folder.path(), "auth");
    let after = fixture.foreign.issue(&["gateway"]).write(fixture.folder.path(), "after");
    until(async || call(&address, &ca, Some(&after)).await.ok()).await;
    call(&address, &old_ca, Some(&before)).await.expect_err("certificates of the old CA are rejected");
}
