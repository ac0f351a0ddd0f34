//! What a new password must be.
//!
//! `common.txt` holds passwords that a guesser tries first, of 8 bytes and more and in lower case: runs of digits and
//! of keys, years and sports and names, and the same with a digit or two behind. It is written for this file from what
//! everyone knows of such lists, and is taken from none.

use crate::AuthError;

/// Longer than any password; what is longer is wrong without hashing it.
pub(crate) const LONGEST: usize = 1024;
const SHORTEST: usize = 8;
const COMMON: &str = include_str!("common.txt");

/// Checks that a password may be given to a user. Where users are `exposed`, coming from other machines, it must not
/// be among the first that a stranger would try.
pub(crate) fn check_new(name: &str, password: &str, exposed: bool) -> Result<(), AuthError> {
    if !(SHORTEST..=LONGEST).contains(&password.len()) {
        Err(AuthError::BadPassword("a password takes 8 to 1024 bytes"))
    } else if exposed && is_same(name, password) {
        Err(AuthError::BadPassword("a password must not be the user's name"))
    } else if exposed && COMMON.lines().any(|common| common.eq_ignore_ascii_case(password)) {
        Err(AuthError::BadPassword("this password is one of the most common ones"))
    } else {
        Ok(())
    }
}

/// Compares without regard to case, and without a copy of the password in memory.
fn is_same(name: &str, password: &str) -> bool {
    let [name, password] = [name, password].map(|text| text.chars().flat_map(char::to_lowercase));
    name.eq(password)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(name: &str, password: &str, exposed: bool) -> Option<String> {
        check_new(name, password, exposed).err().map(|refused| refused.to_string())
    }

    #[test]
    fn a_password_has_a_length() {
        for exposed in [false, true] {
            for password in ["k2#vQ9xL", "ü-ö-ä-", &"x".repeat(1024), "a passphrase of five words"] {
                assert_eq!(refusal("ann", password, exposed), None, "{password}");
            }
            for password in ["", "admin", "k2#vQ9x", "äää", &"x".repeat(1025)] {
                let refused = refusal("ann", password, exposed).unwrap();
                assert_eq!(refused, "a password takes 8 to 1024 bytes");
            }
        }
    }

    #[test]
    fn strangers_would_try_the_name_and_the_common_ones() {
        for (name, password) in [("Ångström", "ÅNGSTRÖM"), ("ann@example.org", "Ann@Example.org")] {
            assert_eq!(refusal(name, password, true).unwrap(), "a password must not be the user's name");
            assert_eq!(refusal(name, password, false), None);
        }
        for password in ["password", "PassWord1", "12345678", "QWERTYUIOP", "iloveyou", "administrator"] {
            let refused = refusal("ann", password, true).unwrap();
            assert_eq!(refused, "this password is one of the most common ones", "{password}");
            assert_eq!(refusal("ann", password, false), None);
        }
        assert_eq!(refusal("ann@example.org", "ann@example.com", true), None);
    }

    #[test]
    fn the_list_can_be_searched() {
        let common: Vec<_> = COMMON.lines().collect();
        assert!(common.len() > 500);
        assert!(common.is_sorted_by(|one, next| one < next), "sorted, and each once");
        for password in common {
            assert!((SHORTEST..=LONGEST).contains(&password.len()), "{password}");
            assert!(
                password.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase()),
                "{password}"
            );
        }
    }
}
