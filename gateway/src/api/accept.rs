//! Headers with weighted lists: `Accept` and `Accept-Encoding` (RFC 9110, section 12.4.2).
//!
//! This is own code: the crate `headers`, which axum-extra uses, has neither header.

use http::{HeaderMap, HeaderName};

/// The names in such a header, in lower case and without parameters, each with its weight in thousandths.
///
/// A malformed weight counts as 0, so that its entry is never preferred.
pub(crate) fn weighted(headers: &HeaderMap, header: HeaderName) -> Vec<(String, u16)> {
    let values = headers.get_all(header).into_iter().filter_map(|value| value.to_str().ok());
    let entries = values.flat_map(|value| value.split(','));
    entries
        .filter_map(|entry| {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next().filter(|name| !name.is_empty())?.to_ascii_lowercase();
            let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
            Some((name, weight.map_or(1000, thousandths)))
        })
        .collect()
}

fn thousandths(weight: &str) -> u16 {
    match weight.parse::<f32>() {
        Ok(weight) if (0.0..=1.0).contains(&weight) => (weight * 1000.0).round() as u16,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use http::header::ACCEPT;

    use super::*;

    #[test]
    fn header_list_is_parsed_with_weights() {
        let mut headers = HeaderMap::new();
        headers.append(ACCEPT, "Text/HTML;level=1;q=0.7, */*; Q=0.05,,a/b".parse().unwrap());
        headers.append(ACCEPT, "c/d;q=2, e/f;q=x, g/h;q=0".parse().unwrap());
        let found = weighted(&headers, ACCEPT);
        let expected = [("text/html", 700), ("*/*", 50), ("a/b", 1000), ("c/d", 0), ("e/f", 0), ("g/h", 0)];
        assert_eq!(found, expected.map(|(name, weight)| (name.to_owned(), weight)));
        assert!(weighted(&HeaderMap::new(), ACCEPT).is_empty());
    }
}
