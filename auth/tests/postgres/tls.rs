//! A Postgres server with TLS only.

use std::net::TcpListener;

use muse_auth::AdminOps;
use rcgen::{CertificateParams, CertifiedIssuer, KeyPair};

use crate::{
    backend::{Server, url},
    harness::{Service, folder},
};

/// TLS for TCP; without TLS only the socket.
const WHO: &str = "local all all trust\nhostssl all all 127.0.0.1/32 trust\n";

#[tokio::test]
async fn postgres_certificate_is_verified() {
    let key = || KeyPair::generate().unwrap();
    let authority = || CertifiedIssuer::self_signed(CertificateParams::default(), key()).unwrap();
    let (ours, theirs) = (authority(), authority());
    let server_key = key();
    let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
    let certificate = params.signed_by(&server_key, &ours).unwrap();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = Server::start(
        port,
        &["-c", "listen_addresses=127.0.0.1", "-c", "ssl=on"],
        &[
            ("pg_hba.conf", WHO),
            ("server.crt", &certificate.pem()),
            ("server.key", &server_key.serialize_pem()),
        ],
    );
    let name = server.new_database();
    let (folder, mut config) = folder();
    let [known, other] = [("known.pem", ours.pem()), ("other.pem", theirs.pem())].map(|(name, text)| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    });

    config.database = url(&format!("localhost:{port}/{name}?sslmode=verify-full&sslrootcert={known}"));
    let service = Service::start(&config).await;
    service.tokens().await;
    service.stop().await;

    for (host, parameters, reason) in [
        ("localhost", "sslmode=disable".to_owned(), "no pg_hba.conf entry"),
        ("localhost", "sslmode=verify-full".to_owned(), "UnknownIssuer"),
        ("localhost", format!("sslmode=verify-full&sslrootcert={other}"), "certificate"),
        ("127.0.0.1", format!("sslmode=verify-full&sslrootcert={known}"), "not valid for name"),
        ("localhost", "sslmode=verify-full&sslrootcert=/none.pem".to_owned(), "No such file"),
    ] {
        config.database = url(&format!("{host}:{port}/{name}?{parameters}"));
        let rejected = AdminOps::open(config.clone()).await.unwrap_err().to_string();
        assert!(rejected.contains(reason), "{parameters}: {rejected}");
        println!("{rejected}");
    }
}
