//! The public keys with which tokens are checked.

use std::{collections::HashMap, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use muse_proto::{Error, Reason, v1::JsonWebKey};
use tracing::warn;

use crate::{claims::Claims, signature_cache::SignatureCache};

pub(crate) const BAD_SIGNATURE: &str = "Signature verification failed";

/// The keys of one JWKS, and the tokens that were found to be signed with them: other keys come with an empty memory,
/// so that no token outlives its key, whatever else goes on at that moment.
pub(crate) struct Keys {
    pub(crate) published: Vec<JsonWebKey>,
    usable: HashMap<String, DecodingKey>,
    verified: SignatureCache,
}

/// Why the claims of a token cannot be trusted.
pub(crate) enum Untrusted {
    /// It names a key that is none of these.
    UnknownKey,
    /// It is not one of ours.
    Invalid(Error),
}

impl Keys {
    /// Reads a JWKS. A key of a kind that is not known here is of no use, so that a newer auth service may publish
    /// some.
    pub(crate) fn read(published: &[JsonWebKey]) -> Self {
        let usable = published.iter().filter_map(|key| Some((key.kid.clone(), usable(key)?))).collect();
        Self { published: published.to_vec(), usable, verified: SignatureCache::new() }
    }

    /// How many of them are of use.
    pub(crate) fn usable(&self) -> usize {
        self.usable.len()
    }

    /// What a token says that one of these keys has signed.
    pub(crate) fn claims(&self, token: &str) -> Result<Arc<Claims>, Untrusted> {
        if let Some(claims) = self.verified.get(token) {
            return Ok(claims);
        }
        let claims = Arc::new(self.check_signature(token)?);
        self.verified.insert(token, Arc::clone(&claims));
        Ok(claims)
    }

    fn check_signature(&self, token: &str) -> Result<Claims, Untrusted> {
        let header = decode_header(token).map_err(|failure| match failure.kind() {
            ErrorKind::InvalidToken => invalid("Not enough segments"),
            _ => invalid("Invalid header string"),
        })?;
        // RFC 7515, 4.1.11: what `crit` lists must be understood, and nothing is.
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return Err(invalid("The specified alg value is not allowed"));
        }
        let kid = header.kid.ok_or_else(|| invalid(BAD_SIGNATURE))?;
        let key = self.usable.get(&kid).ok_or(Untrusted::UnknownKey)?;
        let claims =
            decode::<Claims>(token, key, &signature_alone()).map_err(|failure| match failure.kind() {
                // By then the signature was right: the auth service signed something that it should not have.
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => invalid("A claim is missing or of the wrong type"),
                _ => invalid(BAD_SIGNATURE),
            })?;
        // Else it could not be revoked.
        if claims.claims.jti.is_empty() || claims.claims.sub.is_empty() {
            return Err(invalid("A claim is empty"));
        }
        Ok(claims.claims)
    }
}

/// Time is checked elsewhere, each time that the token is used.
fn signature_alone() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn invalid(message: &str) -> Untrusted {
    Untrusted::Invalid(Error::new(Reason::TokenInvalid, message))
}

fn usable(key: &JsonWebKey) -> Option<DecodingKey> {
    let known = key.kty == "OKP" && key.crv == "Ed25519" && key.alg == "EdDSA" && !key.kid.is_empty();
    let decoded = known.then(|| DecodingKey::from_ed_components(&key.x).ok()).flatten();
    let of_length = decoded.filter(|decoded| decoded.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32));
    if of_length.is_none() {
        warn!(kid = key.kid, kty = key.kty, crv = key.crv, "a published key cannot be used and is left out");
    }
    of_length
}
