//! The services with each other.

use std::path::{Path, PathBuf};

use muse_tests::{
    certificates::{Authority, Files},
    running::{Running, auth, program},
    until,
};
use tokio::process::Command;

/// A call of gRPC without a message in it, by curl with the certificate in `own`.
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

/// A frame of gRPC that holds nothing.
fn empty_message() -> std::fs::File {
    use std::io::{Seek, Write};
    let mut file = tempfile::tempfile().expect("there is a place for temporary files");
    file.write_all(&[0; 5]).and_then(|()| file.rewind()).expect("it can be written");
    file
}

fn settings<'a>(ca: &'a Path, own: &'a Files) -> [(&'static str, &'a Path); 3] {
    [("MUSE_TLS_CA", ca), ("MUSE_TLS_CERT", &own.cert), ("MUSE_TLS_KEY", &own.key)]
}

/// Our CA, a foreign one, and a folder.
struct Place {
    folder: tempfile::TempDir,
    ours: Authority,
    foreign: Authority,
}

impl Place {
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
    let place = Place::new();
    let ca = place.ours.write(place.path("ca.pem"));
    let own = place.ours.issue(&["127.0.0.1"]).write(place.folder.path(), "auth");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;

    let gateway = place.ours.issue(&["gateway"]).write(place.folder.path(), "gateway");
    call(&address, &ca, Some(&gateway)).await.expect("its own are let in");

    for (own, said) in [
        (None, "it shows no certificate"),
        (Some(place.foreign.issue(&["gateway"])), "its certificate is not signed by the CA in MUSE_TLS_CA"),
        (Some(place.ours.issue_expired(&["gateway"])), "its certificate has expired"),
    ] {
        let own = own.map(|pair| pair.write(place.folder.path(), "other"));
        let refused = call(&address, &ca, own.as_ref()).await.expect_err(said);
        assert!(refused.contains("alert"), "the client hears why: {refused}");
        let line = auth.says(said).await;
        assert!(line.contains("WARN") && line.contains("127.0.0.1:"), "{line}");
    }
    call(&address, &ca, Some(&gateway)).await.expect("nothing has happened to the others");
}

#[tokio::test]
async fn client_verifies_the_name_and_ca_of_the_server() {
    let place = Place::new();
    let ca = place.ours.write(place.path("ca.pem"));
    let names = ["auth.internal", "localhost"];
    let own = place.ours.issue(&names).write(place.folder.path(), "auth");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;
    let port = address.rsplit(':').next().unwrap();
    let gateway = |url: &str, ca: &Path, own: &Files| {
        let mut command = program("muse-gateway");
        command.env("GATEWAY_LISTEN", "127.0.0.1:0").env("AUTH_URL", url);
        Running::start(command.envs(settings(ca, own)))
    };

    let ours = place.ours.issue(&["gateway"]).write(place.folder.path(), "gateway");
    let by_name = format!("https://localhost:{port}");
    gateway(&by_name, &ca, &ours).says("synced with the auth service").await;
    let by_address = format!("https://127.0.0.1:{port}");
    gateway(&by_address, &ca, &ours).says("its certificate is not for 127.0.0.1 but for").await;

    let foreign_ca = place.foreign.write(place.path("foreign-ca.pem"));
    let foreign = place.foreign.issue(&["gateway"]).write(place.folder.path(), "foreign");
    let line = gateway(&by_name, &foreign_ca, &foreign)
        .says("its certificate is not signed by the CA in MUSE_TLS_CA")
        .await;
    assert!(line.contains(&format!("localhost:{port}")), "{line}");

    // It knows both, but the other side does not.
    let both = place.path("both.pem");
    let text = [&ca, &foreign_ca].map(|path| std::fs::read_to_string(path).unwrap()).concat();
    std::fs::write(&both, text).unwrap();
    gateway(&by_name, &both, &foreign).says("it refuses our certificate").await;

    let plain = gateway(&format!("http://127.0.0.1:{port}"), &ca, &ours);
    auth.says("it does not speak TLS").await;
    plain.says("no connection to the auth service").await;
}

#[tokio::test]
async fn certificates_and_ca_are_reloaded_without_a_restart() {
    let place = Place::new();
    let ca = place.ours.write(place.path("ca.pem"));
    let own = place.ours.issue(&["127.0.0.1"]).write(place.folder.path(), "auth");
    let before = place.ours.issue(&["gateway"]).write(place.folder.path(), "before");
    let auth = auth(&settings(&ca, &own));
    let address = auth.address().await;
    call(&address, &ca, Some(&before)).await.expect("its own are let in");

    let old_ca = place.ours.write(place.path("old-ca.pem"));
    place.foreign.write(ca.clone());
    place.foreign.issue(&["127.0.0.1"]).write(place.folder.path(), "auth");
    let after = place.foreign.issue(&["gateway"]).write(place.folder.path(), "after");
    until(async || call(&address, &ca, Some(&after)).await.ok()).await;
    call(&address, &old_ca, Some(&before)).await.expect_err("what was of the old CA is not any more");
}
