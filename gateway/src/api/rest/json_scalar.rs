//! JSON scalars as text.

/// The text of a JSON string, number or boolean, the latter two as Python prints them; `None` for
/// other values.
pub(super) fn python_text(json: &str) -> Result<Option<String>, serde_json::Error> {
    Ok(match json.as_bytes().first() {
        Some(b'"') => Some(serde_json::from_str(json)?),
        Some(b't') => Some("True".to_owned()),
        Some(b'f') => Some("False".to_owned()),
        Some(b'-' | b'0'..=b'9') => Some(python_number(json)),
        _ => None,
    })
}

/// The text of a JSON string that is not empty, or why the value, an item of a list if `is_item`,
/// is invalid.
pub(super) fn text(json: &str, is_item: bool) -> Result<Result<String, String>, serde_json::Error> {
    let kind = match json.as_bytes().first() {
        Some(b'"') => {
            let text: String = serde_json::from_str(json)?;
            return Ok(if text.is_empty() { Err("the text is empty".to_owned()) } else { Ok(text) });
        }
        Some(b'[') => "a list; token ids and pairs of texts are not accepted",
        Some(b'{') => "an object",
        Some(b'n') => "null",
        Some(b't' | b'f') => "a boolean",
        _ if is_item => "a number; token ids are not accepted",
        _ => "a number",
    };
    let expected = if is_item { "a text" } else { "a text or a list of texts" };
    Ok(Err(format!("{expected} is expected, not {kind}")))
}

/// Python's `str` of a JSON number. Its integers have any number of digits.
fn python_number(json: &str) -> String {
    match json {
        "-0" => "0".to_owned(),
        _ if json.contains(['.', 'e', 'E']) => json.parse().map_or_else(|_| json.to_owned(), python_float),
        _ => json.to_owned(),
    }
}

/// Python's `repr` of a float: the shortest digits that read back, positional for exponents from -4
/// to 15.
fn python_float(number: f64) -> String {
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(-4..=15) => format!("{number:?}"),
        Ok(exponent) => format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs()),
        Err(_) => scientific,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        let cases = [(2.5, "2.5"), (1.0, "1.0"), (1e15, "1000000000000000.0"), (1e16, "1e+16")];
        for (number, text) in
            cases.into_iter().chain([(1e-4, "0.0001"), (1.5e-5, "1.5e-05"), (-1e100, "-1e+100")])
        {
            assert_eq!(python_float(number), text);
        }
    }
}
