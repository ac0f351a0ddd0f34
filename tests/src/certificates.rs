//! Test certificates in PEM files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

/// A test CA.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// The paths of a certificate and its key.
#[derive(Debug, Clone)]
pub struct Files {
    /// The certificate.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// A certificate and its key in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    /// The certificate.
    pub cert: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// Creates a CA with this name.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Self(CertifiedIssuer::self_signed(params, key()).expect("the CA is valid"))
    }

    /// Writes the CA's certificate to a file.
    pub fn write(&self, path: PathBuf) -> PathBuf {
        fs::write(&path, self.0.pem()).expect("the folder can be written");
        path
    }

    /// Issues a certificate for these host names and addresses, valid for decades.
    #[must_use]
    pub fn issue(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2100)
    }

    /// Issues an expired certificate.
    #[must_use]
    pub fn issue_expired(&self, names: &[&str]) -> Pair {
        self.issue_until(names, 2021)
    }

    fn issue_until(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("the names can be in a certificate");
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = key();
        let cert = params.signed_by(&key, &self.0).expect("the certificate is valid").pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

impl Pair {
    /// Writes both to files in `folder`, replacing existing ones atomically.
    pub fn write(&self, folder: &Path, name: &str) -> Files {
        let [cert, key] = ["pem", "key"].map(|kind| folder.join(format!("{name}.{kind}")));
        for (path, text) in [(&cert, &self.cert), (&key, &self.key)] {
            let new = path.with_extension("new");
            fs::write(&new, text).expect("the folder can be written");
            fs::rename(&new, path).expect("the file can be replaced");
        }
        Files { cert, key }
    }
}

fn key() -> KeyPair {
    KeyPair::generate().expect("keys can be generated")
}
