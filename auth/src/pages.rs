//! Lists that are read in pages.

use crate::AuthError;

/// All items of a list. `read` returns the page with a token, of which the first is empty, and the
/// token of the next one.
pub(crate) async fn all_pages<T>(
    read: impl AsyncFn(&str) -> Result<(Vec<T>, Option<String>), AuthError>,
) -> Result<Vec<T>, AuthError> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let (page, next) = read(&token).await?;
        all.extend(page);
        match next {
            Some(next) => token = next,
            None => return Ok(all),
        }
    }
}

/// Removes from rows those after `limit`, of which one was read to find whether there are any.
/// Returns the last row of the page if there are.
pub(crate) fn truncate<T>(rows: &mut Vec<T>, limit: u64) -> Option<&T> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn all_pages_are_read_until_the_last() {
        let read = async |token: &str| {
            let first: u32 = token.parse().unwrap_or(0);
            Ok((vec![first, first + 1], (first < 4).then(|| (first + 2).to_string())))
        };
        assert_eq!(all_pages(read).await.unwrap(), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn page_with_one_row_more_has_a_last_row() {
        let mut rows = vec![1, 2, 3];
        assert_eq!(truncate(&mut rows, 2), Some(&2));
        assert_eq!(truncate(&mut rows, 2), None);
        assert_eq!(rows, [1, 2]);
    }
}
