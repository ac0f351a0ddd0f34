//! Names of users: validation, normal forms, and escaping for logs.

use std::{borrow::Cow, fmt::Write};

use muse_verifier::api_keys::KEY_PREFIX;
use unicode_normalization::UnicodeNormalization;
use unicode_properties::{GeneralCategory, GeneralCategoryGroup, UnicodeGeneralCategory};
use unicode_security::{MixedScript, skeleton};

/// The name of the first user, and the default password on a service that only this machine can
/// reach.
pub(crate) const ADMIN: &str = "admin";
/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;
/// Combining marks on one character. No script needs more.
const MAX_MARKS: usize = 4;
/// A name that differs from [`ADMIN`] by a letter that looks the same in many fonts, although UTS
/// 39 does not list it as confusable.
const ADMIN_WITH_L: &str = "admln";

/// Why a name is not allowed for a new user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameProblem {
    /// Empty or too long.
    #[error("it must have 1 to 64 bytes")]
    Length,
    /// White space other than single spaces between words.
    #[error("white space other than single spaces between words is not allowed")]
    WhiteSpace,
    /// A character that is invisible, has no meaning of its own, or changes the text around it.
    #[error("the character U+{:04X} is not allowed: it is invisible, unassigned, or changes the text around it", *.0 as u32)]
    Character(char),
    /// A combining mark that belongs to no letter, or too many on one.
    #[error("the combining mark U+{:04X} belongs to no letter, or is one of too many", *.0 as u32)]
    Mark(char),
    /// Letters of several scripts.
    #[error("it mixes letters of several scripts, such as Latin and Cyrillic")]
    MixedScripts,
    /// It is a relative path, which clients remove from a URL before they send it.
    #[error("it is a relative path")]
    RelativePath,
    /// It contains an API key, pasted into the wrong field.
    #[error("it contains an API key")]
    ApiKey,
    /// It is confusable with another name.
    #[error("it looks like {0:?}")]
    Confusable(String),
}

/// The normal form (NFC) of a new user's name.
///
/// # Errors
///
/// If the name is not allowed.
pub(crate) fn normalize_new(name: &str) -> Result<String, NameProblem> {
    // First, because the cost of the checks grows with the length. A name is at most three times as
    // long as its NFC.
    if name.len() > 3 * MAX_NAME_BYTES {
        return Err(NameProblem::Length);
    }
    let name: String = name.nfc().collect();
    if !(1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Err(NameProblem::Length);
    }
    if redact_key(&name) != name {
        return Err(NameProblem::ApiKey);
    }
    if matches!(name.as_str(), "." | "..") {
        return Err(NameProblem::RelativePath);
    }
    let mut previous = None;
    let mut marks = 0;
    for character in name.chars() {
        if character.is_whitespace() && (character != ' ' || matches!(previous, None | Some(' '))) {
            return Err(NameProblem::WhiteSpace);
        }
        if is_deceptive(character) {
            return Err(NameProblem::Character(character));
        }
        if is_mark(character) {
            marks += 1;
            if marks > MAX_MARKS || !previous.is_some_and(|before| is_letter(before) || is_mark(before)) {
                return Err(NameProblem::Mark(character));
            }
        } else {
            marks = 0;
        }
        previous = Some(character);
    }
    if name.ends_with(' ') {
        return Err(NameProblem::WhiteSpace);
    }
    if !name.is_single_script() {
        return Err(NameProblem::MixedScripts);
    }
    let lower = name.to_lowercase();
    if name != ADMIN && [ADMIN, ADMIN_WITH_L].into_iter().any(|admin| are_confusable(&lower, admin)) {
        return Err(NameProblem::Confusable(ADMIN.to_owned()));
    }
    Ok(name)
}

/// Whether two names are confusable by UTS 39.
pub(crate) fn are_confusable(one: &str, other: &str) -> bool {
    skeleton(one).eq(skeleton(other))
}

/// Whether an existing user can have this name: one who was added before the rules for new names,
/// or was imported.
pub(crate) fn is_valid_existing(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.trim() == name && !name.chars().any(char::is_control)
}

/// The forms of a name by which a user is looked up: as typed, NFC, NFD. Systems differ in the form
/// that they send for the same text.
pub(crate) fn normal_forms(typed: &str) -> Vec<String> {
    let mut forms = vec![typed.to_owned()];
    // ASCII has one form, and a longer text is not a name.
    if !typed.is_ascii() && typed.len() <= 3 * MAX_NAME_BYTES {
        for form in [typed.nfc().collect(), typed.nfd().collect::<String>()] {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
    }
    forms
}

/// The NFC of a name.
pub(crate) fn nfc(typed: &str) -> String {
    typed.nfc().collect()
}

/// A name for errors and logs: not if it contains an API key, pasted into the wrong field.
pub(crate) fn redact_key(name: &str) -> &str {
    /// `muse_`, the id, and half of a secret.
    const SUSPICIOUS_BYTES: usize = 34;
    match name.find(KEY_PREFIX) {
        Some(at) if name.len() - at >= SUSPICIOUS_BYTES => "an API key",
        _ => name,
    }
}

/// Escapes the characters of a name that are invisible or change the text around them, for logs and
/// terminals.
pub(crate) fn escape(name: &str) -> Cow<'_, str> {
    if !name.chars().any(is_deceptive) {
        return Cow::Borrowed(name);
    }
    let mut text = String::with_capacity(name.len());
    for character in name.chars() {
        if is_deceptive(character) {
            // Writing to a string cannot fail.
            let _ = write!(text, "{}", character.escape_unicode());
        } else {
            text.push(character);
        }
    }
    Cow::Owned(text)
}

/// Whether a character is invisible, unassigned, or changes other characters.
fn is_deceptive(character: char) -> bool {
    use GeneralCategory::{
        Control, Format, LineSeparator, ParagraphSeparator, PrivateUse, Surrogate, Unassigned,
    };
    matches!(
        character.general_category(),
        Control | Format | LineSeparator | ParagraphSeparator | PrivateUse | Surrogate | Unassigned
    ) || is_blank(character)
}

/// Letters, marks and symbols that are not visible: the default ignorable ones, and the empty
/// Braille pattern.
fn is_blank(character: char) -> bool {
    matches!(
        character,
        '\u{34f}'
            | '\u{115f}'..='\u{1160}'
            | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}'
            | '\u{2800}'
            | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}'
            | '\u{ffa0}'
            | '\u{e0100}'..='\u{e01ef}'
    )
}

fn is_mark(character: char) -> bool {
    character.general_category_group() == GeneralCategoryGroup::Mark
}

fn is_letter(character: char) -> bool {
    character.general_category_group() == GeneralCategoryGroup::Letter
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(name: &str) -> NameProblem {
        normalize_new(name).expect_err(name)
    }

    #[test]
    fn name_of_one_script_is_accepted() {
        for name in [
            "a",
            "admin",
            "admin2",
            "administrator",
            "ann@example.org",
            "Ångström",
            "two words",
            "O'Brien-Smith_3",
            "мария",
            "Ελένη",
            "田中さくら",
            "김민수",
            "रवि",
            "محمد",
            "Nguyễn Văn A",
            &"x".repeat(64),
        ] {
            assert_eq!(normalize_new(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn new_name_is_normalized() {
        assert_eq!(normalize_new("A\u{30a}ngstro\u{308}m").as_deref(), Ok("Ångström"));
        assert_eq!(normal_forms("A\u{30a}"), ["A\u{30a}", "Å"]);
        assert_eq!(normal_forms("Å"), ["Å", "A\u{30a}"]);
        assert_eq!(normal_forms("ann"), ["ann"]);
    }

    #[test]
    fn deceptive_characters_are_rejected() {
        for character in [
            '\0',
            '\n',
            '\t',
            '\u{7f}',
            '\u{200b}',
            '\u{200d}',
            '\u{202e}',
            '\u{2066}',
            '\u{2028}',
            '\u{2029}',
            '\u{feff}',
            '\u{ad}',
            '\u{e000}',
            '\u{f8ff}',
            '\u{378}',
            '\u{115f}',
            '\u{3164}',
            '\u{fe0f}',
            '\u{34f}',
            '\u{2800}',
            '\u{e0041}',
        ] {
            for name in [format!("a{character}b"), format!("{character}a"), format!("a{character}")] {
                let problem = rejection(&name);
                assert!(
                    matches!(problem, NameProblem::Character(_) | NameProblem::WhiteSpace),
                    "{name:?} {problem}"
                );
            }
        }
    }

    #[test]
    fn name_with_other_white_space_is_rejected() {
        for name in [" ", " a", "a ", "a  b", "a\u{a0}b", "\u{a0}a", "a\u{2003}b", "a\u{3000}b"] {
            assert_eq!(rejection(name), NameProblem::WhiteSpace, "{name:?}");
        }
    }

    #[test]
    fn lone_combining_marks_are_rejected() {
        for name in ["\u{301}", "\u{301}a", "a \u{301}", "1\u{20e3}", "-\u{338}"] {
            assert!(matches!(rejection(name), NameProblem::Mark(_)), "{name:?}");
        }
        assert!(matches!(rejection(&format!("x{}", "\u{335}".repeat(5))), NameProblem::Mark(_)));
    }

    #[test]
    fn mixed_scripts_are_rejected() {
        for name in ["аdam", "pаypal", "ann\u{3b1}", "мaria"] {
            assert_eq!(rejection(name), NameProblem::MixedScripts, "{name:?}");
        }
    }

    #[test]
    fn names_confusable_with_admin_are_rejected() {
        for name in [
            "Admin",
            "ADMIN",
            "admIn",
            "adrnin",
            "adm\u{131}n",
            "adm1n",
            "admln",
            "adm|n",
            "ａｄｍｉｎ",
            "𝐚𝐝𝐦𝐢𝐧",
        ] {
            assert_eq!(rejection(name), NameProblem::Confusable(ADMIN.to_owned()), "{name:?}");
        }
        assert!(normalize_new("\u{430}dmin").is_err());
    }

    #[test]
    fn name_length_is_that_of_its_normal_form() {
        for name in ["", &"x".repeat(65), &"é".repeat(33), &"x".repeat(10_000)] {
            assert_eq!(rejection(name), NameProblem::Length);
        }
        // 96 bytes as typed, 64 in NFC.
        assert!(normalize_new(&"e\u{301}".repeat(32)).is_ok());
    }

    #[test]
    fn logged_name_does_not_change_the_direction_of_text() {
        assert_eq!(escape("ann\u{202e}nimda"), "ann\\u{202e}nimda");
        assert_eq!(escape("a\u{2028}b\nc"), "a\\u{2028}b\\u{a}c");
        assert_eq!(escape("Ångström"), "Ångström");
    }

    #[test]
    fn existing_name_must_be_printable_and_short() {
        for name in ["a", "Admin", "ann\u{202e}", "\u{301}", &"x".repeat(64)] {
            assert!(is_valid_existing(name), "{name:?}");
        }
        for name in ["", " ", " a", "a ", "a\t", "a\nb", "a\0b", "\u{a0}a", "\u{7f}", &"x".repeat(65)] {
            assert!(!is_valid_existing(name), "{name:?}");
        }
    }

    #[test]
    fn name_that_is_a_relative_path_is_rejected() {
        for name in [".", ".."] {
            assert_eq!(rejection(name), NameProblem::RelativePath);
        }
        for name in ["...", ".a", "../a", "a.b"] {
            assert_eq!(normalize_new(name).as_deref(), Ok(name));
        }
    }

    #[test]
    fn name_with_an_api_key_is_rejected() {
        let key = format!("{KEY_PREFIX}abcdefghijkl_{}", "a".repeat(39));
        assert_eq!(normalize_new(&key), Err(NameProblem::ApiKey));
        assert_eq!(normalize_new("muse_team").as_deref(), Ok("muse_team"));
    }
}
