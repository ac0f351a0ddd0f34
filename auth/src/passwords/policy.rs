//! Rules for new passwords.
//!
//! `common.txt` contains common passwords of 8 bytes and more in lower case: sequences of digits
//! and of keys, years, sports and names, and the same followed by one or two digits. It was written
//! for this project and is not a copy of another list.

use crate::AuthError;

/// The longest password. A longer one is wrong without hashing it.
pub(crate) const MAX_PASSWORD_BYTES: usize = 1024;
const MIN_PASSWORD_BYTES: usize = 8;
const COMMON: &str = include_str!("common.txt");

/// Checks a new password of a user. If the service is `exposed`, common passwords and the name are
/// rejected, too.
pub(crate) fn check_new(name: &str, password: &str, exposed: bool) -> Result<(), AuthError> {
    if !(MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.len()) {
        Err(AuthError::BadPassword("a password must have 8 to 1024 bytes"))
    } else if exposed && is_same(name, password) {
        Err(AuthError::BadPassword("a password must not be the user's name"))
    } else if exposed && COMMON.lines().any(|common| common.eq_ignore_ascii_case(password)) {
        Err(AuthError::BadPassword("this password is one of the most common ones"))
    } else {
        Ok(())
    }
}

/// Compares case-insensitively, without a copy of the password in memory.
fn is_same(name: &str, password: &str) -> bool {
    let [name, password] = [name, password].map(|text| text.chars().flat_map(char::to_lowercase));
    name.eq(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(name: &str, password: &str, exposed: bool) -> Option<String> {
        check_new(name, password, exposed).err().map(|error| error.to_string())
    }

    #[test]
    fn password_length_is_bounded() {
        for exposed in [false, true] {
            for password in ["k2#vQ9xL", "ü-ö-ä-", &"x".repeat(1024), "a passphrase of five words"] {
                assert_eq!(rejection("ann", password, exposed), None, "{password}");
            }
            for password in ["", "admin", "k2#vQ9x", "äää", &"x".repeat(1025)] {
                let error = rejection("ann", password, exposed).unwrap();
                assert_eq!(error, "a password must have 8 to 1024 bytes");
            }
        }
    }

    #[test]
    fn common_passwords_are_rejected_if_exposed() {
        for (name, password) in [("Ångström", "ÅNGSTRÖM"), ("ann@example.org", "Ann@Example.org")] {
            assert_eq!(rejection(name, password, true).unwrap(), "a password must not be the user's name");
            assert_eq!(rejection(name, password, false), None);
        }
        for password in ["password", "PassWord1", "12345678", "QWERTYUIOP", "iloveyou", "administrator"] {
            let error = rejection("ann", password, true).unwrap();
            assert_eq!(error, "this password is one of the most common ones", "{password}");
            assert_eq!(rejection("ann", password, false), None);
        }
        assert_eq!(rejection("ann@example.org", "ann@example.com", true), None);
    }

    #[test]
    fn common_passwords_are_sorted_and_in_lower_case() {
        let common: Vec<_> = COMMON.lines().collect();
        assert!(common.len() > 500);
        assert!(common.is_sorted_by(|one, next| one < next), "sorted, and each once");
        for password in common {
            assert!((MIN_PASSWORD_BYTES..=MAX_PASSWORD_BYTES).contains(&password.len()), "{password}");
            assert!(
                password.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()),
                "{password}"
            );
        }
    }
}
