//! Errors with their causes, in one line.

use std::error::Error;

/// An error and its causes, joined by colons. A cause that the text already contains is not
/// repeated.
#[must_use]
pub fn with_causes(failure: &dyn Error) -> String {
    followed_by_causes(failure.to_string(), failure.source())
}

/// `text` and these causes, as in [`with_causes`].
#[must_use]
pub fn followed_by_causes(mut text: String, mut cause: Option<&(dyn Error + 'static)>) -> String {
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}
