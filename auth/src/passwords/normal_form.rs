//! Unicode normal forms of passwords.
//!
//! Keyboards and systems send the same characters in different forms (NFC or NFD). Passwords are
//! hashed in NFC, as RFC 8265 (OpaqueString) requires.

use secrecy::{ExposeSecret, SecretString};
use unicode_normalization::UnicodeNormalization;

/// The NFC of a password.
pub(crate) fn nfc(password: &SecretString) -> SecretString {
    let typed = password.expose_secret();
    if typed.is_ascii() { password.clone() } else { typed.nfc().collect::<String>().into() }
}

/// The forms in which the password of a user may have been hashed: NFC, and, by earlier releases, as
/// typed then: NFC or NFD, or what is typed now.
pub(super) fn normal_forms(password: &SecretString) -> Vec<SecretString> {
    let mut forms = vec![nfc(password)];
    let typed = password.expose_secret();
    if !typed.is_ascii() {
        for form in [typed.nfd().collect::<String>().into(), password.clone()] {
            if !forms.iter().any(|known| is_same(known, &form)) {
                forms.push(form);
            }
        }
    }
    forms
}

fn is_same(one: &SecretString, other: &SecretString) -> bool {
    one.expose_secret() == other.expose_secret()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forms(password: &str) -> Vec<String> {
        let forms = normal_forms(&password.to_owned().into());
        forms.iter().map(|form| form.expose_secret().to_owned()).collect()
    }

    #[test]
    fn forms_of_a_password_begin_with_nfc() {
        assert_eq!(forms("admin"), ["admin"]);
        assert_eq!(forms("日本語"), ["日本語"]);
        for typed in ["ren\u{e9}", "rene\u{301}"] {
            assert_eq!(forms(typed), ["ren\u{e9}", "rene\u{301}"]);
        }
        // Neither NFC nor NFD.
        let mixed = "\u{e9}e\u{301}";
        assert_eq!(forms(mixed), ["\u{e9}\u{e9}", "e\u{301}e\u{301}", mixed]);
    }
}
