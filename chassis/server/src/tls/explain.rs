//! What is wrong with a connection, for the operator who looks at the log.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};

/// Why a handshake failed, or a connection broke, with "it" for the other side.
pub(super) fn failure(failure: &io::Error) -> String {
    match failure.get_ref().and_then(|inner| inner.downcast_ref()) {
        Some(Error::InvalidCertificate(_)) => format!("its certificate {}", refusal_of(failure)),
        Some(Error::NoCertificatesPresented) => "it shows no certificate".to_owned(),
        Some(Error::AlertReceived(alert)) => format!("it refuses {}", refused_by(*alert)),
        Some(Error::InvalidMessage(_)) => "it does not speak TLS".to_owned(),
        Some(other) => other.to_string(),
        None if failure.kind() == io::ErrorKind::UnexpectedEof => {
            "it hung up during the handshake".to_owned()
        }
        None => failure.to_string(),
    }
}

fn refusal_of(failure: &io::Error) -> String {
    failure.get_ref().and_then(|inner| inner.downcast_ref()).map(refusal).unwrap_or_default()
}

/// Why a certificate is refused: what would follow "the certificate".
pub(super) fn refusal(refused: &Error) -> String {
    let Error::InvalidCertificate(reason) = refused else { return format!("cannot be used: {refused}") };
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
        other => format!("is refused: {other}"),
    }
}

/// What the other side refuses, as it said.
fn refused_by(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateExpired => "our certificate: it has expired".to_owned(),
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "our certificate: it is not of its CA".to_owned()
        }
        AlertDescription::CertificateRequired => "us without a certificate".to_owned(),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate => format!("our certificate: {alert:?}"),
        other => format!("the connection: {other:?}"),
    }
}
