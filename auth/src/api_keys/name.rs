//! Names of API keys.

use muse_verifier::api_keys::KEY_PREFIX;

use crate::AuthError;

/// Bytes of a name.
const MAX_NAME_BYTES: usize = 100;

/// Checks the name of a key. It is printed, so control characters are rejected; so is a key that was
/// pasted into the wrong field.
pub(super) fn check(name: &str) -> Result<(), AuthError> {
    let problem = if name.trim().is_empty() || name.len() > MAX_NAME_BYTES {
        "it has 1 to 100 bytes"
    } else if name.chars().any(char::is_control) {
        "control characters are not allowed"
    } else if name.contains(KEY_PREFIX) {
        "it must not contain a key"
    } else {
        return Ok(());
    };
    Err(AuthError::BadKey { field: "name", problem })
}
