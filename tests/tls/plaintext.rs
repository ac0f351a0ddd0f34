//! Plain text is limited to loopback unless an option allows it; invalid options end a program with
//! status 64.

use std::path::Path;

use muse_tests::{
    certificates::Authority,
    running::{Running, auth, program},
};

/// Starts a program with these settings. It must exit with status 64 and report `problem` for
/// `option`.
async fn assert_rejected(name: &str, settings: &[(&str, &str)], option: &str, problem: &str) {
    let mut command = program(name);
    if name == "muse-embedder" {
        command.env("MUSE_MODEL_DIR", ".");
    }
    let mut running = Running::start(command.envs(settings.iter().copied()));
    let status = running.wait_for_exit().await;
    let log = running.log();
    assert_eq!(status.code(), Some(64), "{name} {settings:?}: {log}");
    assert!(log.contains(option) && log.contains(problem), "{name} {settings:?}: {log}");
    assert!(!log.contains(" listens"), "{log}");
}

#[tokio::test]
async fn plain_text_with_other_machines_is_rejected() {
    let open = "0.0.0.0:0";
    for (name, variable) in [
        ("muse-auth", "AUTH_LISTEN"),
        ("muse-embedder", "EMBEDDER_LISTEN"),
        ("muse-gateway", "GATEWAY_LISTEN"),
    ] {
        assert_rejected(name, &[(variable, open)], "--listen", "MUSE_PLAINTEXT=true").await;
        assert_rejected(
            name,
            &[(variable, "[::]:0"), ("MUSE_PLAINTEXT", "false")],
            "--listen",
            "in plain text",
        )
        .await;
    }
    for (name, variable, option) in [
        ("muse-embedder", "AUTH_URL", "--auth"),
        ("muse-gateway", "AUTH_URL", "--auth"),
        ("muse-gateway", "EMBEDDER_URL", "--embedder"),
    ] {
        assert_rejected(name, &[(variable, "http://10.0.0.1:5001")], option, "MUSE_PLAINTEXT=true").await;
        assert_rejected(name, &[(variable, "http://auth.internal:5001")], option, "in plain text").await;
        assert_rejected(name, &[(variable, "https://auth.internal:5001")], option, "MUSE_TLS_CA").await;
    }
}

#[tokio::test]
async fn plain_text_is_allowed_by_an_option() {
    let plain = [("AUTH_LISTEN", "0.0.0.0:0"), ("MUSE_PLAINTEXT", "true")]
        .map(|(name, value)| (name, Path::new(value)));
    auth(&plain).wait_for_log("0.0.0.0:").await;
}

#[tokio::test]
async fn invalid_certificate_files_are_rejected_at_startup() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (ours, foreign) = (Authority::new("ours"), Authority::new("foreign"));
    let ca = ours.write(path("ca.pem").into()).to_str().unwrap().to_owned();
    ours.issue(&["localhost"]).write(folder.path(), "good");
    ours.issue(&["localhost"]).write(folder.path(), "other");
    ours.issue_expired(&["localhost"]).write(folder.path(), "expired");
    foreign.issue(&["localhost"]).write(folder.path(), "foreign");
    std::fs::write(path("garbage.pem"), "no PEM").unwrap();

    for (cert, key, option, problem) in [
        ("missing.pem", "good.key", "MUSE_TLS_CERT", "cannot read"),
        ("garbage.pem", "good.key", "MUSE_TLS_CERT", "no certificate"),
        ("good.pem", "missing.key", "MUSE_TLS_KEY", "cannot read"),
        ("good.pem", "garbage.pem", "MUSE_TLS_KEY", "no private key"),
        ("good.pem", "other.key", "MUSE_TLS_KEY", "does not belong to the certificate"),
        ("expired.pem", "expired.key", "MUSE_TLS_CERT", "has expired"),
        ("foreign.pem", "foreign.key", "MUSE_TLS_CERT", "not signed by the CA in MUSE_TLS_CA"),
    ] {
        let (cert, key) = (path(cert), path(key));
        let settings = [("MUSE_TLS_CA", &*ca), ("MUSE_TLS_CERT", &cert), ("MUSE_TLS_KEY", &key)];
        for name in ["muse-auth", "muse-embedder", "muse-gateway"] {
            assert_rejected(name, &settings, option, problem).await;
        }
        if option != "MUSE_TLS_CERT" || problem != "not signed by the CA in MUSE_TLS_CA" {
            let option = option.replace("MUSE", "GATEWAY");
            let settings = [("GATEWAY_TLS_CERT", &*cert), ("GATEWAY_TLS_KEY", &key)];
            assert_rejected("muse-gateway", &settings, &option, problem).await;
        }
    }
    let (good, garbage) = (path("good.pem"), path("garbage.pem"));
    assert_rejected("muse-auth", &[("MUSE_TLS_CERT", &good)], "--peer-key", "required").await;
    assert_rejected("muse-gateway", &[("GATEWAY_TLS_CERT", &good)], "--tls-key", "required").await;
    let key = path("good.key");
    let settings = [("MUSE_TLS_CA", &*garbage), ("MUSE_TLS_CERT", &good), ("MUSE_TLS_KEY", &key)];
    assert_rejected("muse-auth", &settings, "MUSE_TLS_CA", "no certificate").await;
}
