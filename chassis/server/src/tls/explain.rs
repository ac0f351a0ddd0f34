//! Error texts of TLS connections, for operators.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake or a connection failed; "it" is the other side.
pub(super) fn describe(failure: &io::Error) -> String {
    match failure.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(_)) => format!("its certificate {}", rejection_of(failure)),
        Some(Error::NoCertificatesPresented) => "it presents no certificate".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("it rejects {}", rejected_by(*alert)),
        Some(Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(other) => other.to_string(),
        None if failure.kind() == io::ErrorKind::UnexpectedEof => {
            "it closed the connection during the handshake".to_owned()
        }
        None => failure.to_string(),
    }
}

fn rejection_of(failure: &io::Error) -> String {
    failure.get_ref().and_then(|inner| inner.downcast_ref()).map(rejection).unwrap_or_default()
}

/// Why a certificate is rejected: a text that follows "the certificate".
pub(super) fn rejection(error: &Error) -> String {
    let Error::InvalidCertificate(reason) = error else { return format!("cannot be used: {error}") };
    match reason {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "has expired".to_owned(),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "is not signed by the CA in MUSE_TLS_CA".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("is not for {} but for {}", expected.to_str(), presented.join(", "))
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "has an extended key usage that does not allow this".to_owned()
        }
        other => format!("is rejected: {other}"),
    }
}

/// What the other side rejects, by its alert.
fn rejected_by(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "our certificate: it has expired".to_owned(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "our certificate: its CA did not sign it".to_owned()
        }
        AlertDescription::CertificateRequired => "us without a certificate".to_owned(),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => format!("our certificate: {alert:?}"),
        other => format!("the connection: {other:?}"),
    }
}
