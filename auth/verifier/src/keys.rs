//! The public keys, and the verification of signatures.

use std::{collections::HashMap, sync::Arc};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, errors::ErrorKind};
use muse_proto::{Error, Reason, v1::JsonWebKey};
use tracing::warn;

use crate::{claims::Claims, signature_cache::SignatureCache};

pub(crate) const BAD_SIGNATURE: &str = "Signature verification failed";

/// The keys of one JWKS, with a cache of the tokens that they verified. Another key set starts with
/// an empty cache, so that no token remains valid without its key.
pub(crate) struct KeySet {
    pub(crate) published: Vec<JsonWebKey>,
    decoding_keys: HashMap<String, DecodingKey>,
    cache: SignatureCache,
}

/// Why the signature of a token is not valid.
pub(crate) enum SignatureProblem {
    /// The key is not in the set.
    UnknownKey,
    /// The token is invalid.
    Invalid(Error),
}

impl KeySet {
    /// Parses a JWKS. Keys of unknown kinds are ignored, so that a newer auth service may publish
    /// some.
    pub(crate) fn parse(published: &[JsonWebKey]) -> Self {
        let decoding_keys =
            published.iter().filter_map(|key| Some((key.kid.clone(), decoding_key(key)?))).collect();
        Self { published: published.to_vec(), decoding_keys, cache: SignatureCache::default() }
    }

    /// The number of usable keys.
    pub(crate) fn usable(&self) -> usize {
        self.decoding_keys.len()
    }

    /// The claims of a token, after its signature is verified.
    pub(crate) fn claims(&self, token: &str) -> Result<Arc<Claims>, SignatureProblem> {
        if let Some(claims) = self.cache.get(token) {
            return Ok(claims);
        }
        let claims = Arc::new(self.verify_signature(token)?);
        self.cache.insert(token, Arc::clone(&claims));
        Ok(claims)
    }

    fn verify_signature(&self, token: &str) -> Result<Claims, SignatureProblem> {
        let header = decode_header(token).map_err(|failure| match failure.kind() {
            ErrorKind::InvalidToken => invalid("Not enough segments"),
            _ => invalid("Invalid header string"),
        })?;
        // RFC 7515, 4.1.11: extensions in `crit` must be understood, and none is.
        if header.alg != Algorithm::EdDSA || header.crit.is_some() {
            return Err(invalid("The specified alg value is not allowed"));
        }
        let kid = header.kid.ok_or_else(|| invalid(BAD_SIGNATURE))?;
        let key = self.decoding_keys.get(&kid).ok_or(SignatureProblem::UnknownKey)?;
        let claims =
            decode::<Claims>(token, key, &signature_only()).map_err(|failure| match failure.kind() {
                // The signature is valid, so the auth service signed invalid claims.
                ErrorKind::Json(_) | ErrorKind::Utf8(_) => invalid("A claim is missing or of the wrong type"),
                _ => invalid(BAD_SIGNATURE),
            })?;
        // Otherwise the token could not be revoked.
        if claims.claims.jti.is_empty() || claims.claims.sub.is_empty() {
            return Err(invalid("A claim is empty"));
        }
        Ok(claims.claims)
    }
}

/// Validates the signature only. The verifier checks the times at each use of the token.
fn signature_only() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn invalid(message: &str) -> SignatureProblem {
    SignatureProblem::Invalid(Error::new(Reason::TokenInvalid, message))
}

fn decoding_key(key: &JsonWebKey) -> Option<DecodingKey> {
    let is_known = key.kty == "OKP" && key.crv == "Ed25519" && key.alg == "EdDSA" && !key.kid.is_empty();
    let decoded = is_known.then(|| DecodingKey::from_ed_components(&key.x).ok()).flatten();
    let of_length = decoded.filter(|decoded| decoded.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == 32));
    if of_length.is_none() {
        warn!(kid = key.kid, kty = key.kty, crv = key.crv, "ignored a published key of an unknown kind");
    }
    of_length
}
