//! Headers with the state of the caller's quota, in every response to a caller who has one. Their
//! names and formats are OpenAI's.
//!
//! The state is that of the last reports of the embedders, which report every two seconds.

use std::{fmt::Write, time::Duration};

use axum::{extract::Request, response::Response};
use http::{HeaderName, HeaderValue, header};
use muse_verifier::{Principal, QuotaStatus, TokenKind, Verifier};

use super::{Around, Rejection};
use crate::{Cookies, auth::Authenticated, cookies};

/// Tokens of the quota, tokens that are left, and time until the quota is reset.
pub(crate) const QUOTA_HEADERS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];

/// Adds the headers. Requests cost nothing while nobody has a quota.
#[derive(Debug, Clone)]
pub(crate) struct QuotaHeaders {
    verifier: Verifier,
    cookies: Cookies,
}

impl QuotaHeaders {
    /// Adds the quotas that `verifier` knows. Tokens in cookies count unless `cookies` is
    /// [`Cookies::Off`].
    pub(crate) fn new(verifier: Verifier, cookies: Cookies) -> Self {
        Self { verifier, cookies }
    }

    /// The caller, if the credential of the request is valid.
    fn caller(&self, request: &Request) -> Option<Principal> {
        let headers = request.headers();
        if headers.contains_key(header::AUTHORIZATION) || self.cookies == Cookies::Off {
            return request.extensions().get().map(|Authenticated(caller)| caller.clone());
        }
        let token = cookies::value(headers, cookies::name(TokenKind::Access))?;
        self.verifier.verify(token, Some(TokenKind::Access)).ok().map(Principal::Token)
    }
}

impl Around for QuotaHeaders {
    /// The caller, whose quota may change until the response.
    type Context = Option<(Verifier, Principal)>;

    fn before(&self, request: &mut Request) -> Result<Self::Context, Rejection> {
        if !self.verifier.has_quotas() {
            return Ok(None);
        }
        Ok(self.caller(request).map(|caller| (self.verifier.clone(), caller)))
    }

    fn after(caller: Self::Context, mut response: Response) -> Response {
        let quota = caller.and_then(|(verifier, caller)| verifier.quota(&caller));
        if let Some(QuotaStatus { limit, remaining, resets_in, .. }) = quota {
            let values = [limit.to_string(), remaining.to_string(), duration(resets_in)];
            for (name, value) in QUOTA_HEADERS.into_iter().zip(values) {
                if let Ok(value) = HeaderValue::try_from(value) {
                    response.headers_mut().insert(name, value);
                }
            }
        }
        response
    }
}

/// A duration in OpenAI's format, in whole seconds: `0s`, `59s`, `6m0s`, `26h0m5s`.
fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    let mut text = String::new();
    // Writing to a string cannot fail.
    if hours > 0 {
        let _ = write!(text, "{hours}h");
    }
    if seconds >= 60 {
        let _ = write!(text, "{minutes}m");
    }
    let _ = write!(text, "{}s", seconds % 60);
    text
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use muse_proto::v1::QuotaState;
    use muse_verifier::api_keys::{KeyId, SECRET_BYTES, compose};

    use super::{super::Authenticate, *};

    #[test]
    fn durations_have_openai_format() {
        for (seconds, expected) in
            [(0, "0s"), (59, "59s"), (60, "1m0s"), (360, "6m0s"), (3_600, "1h0m0s"), (93_605, "26h0m5s")]
        {
            assert_eq!(duration(Duration::from_secs(seconds)), expected);
        }
    }

    #[test]
    fn response_to_a_caller_with_a_quota_has_its_state() {
        let verifier = Verifier::with_keys(&[]);
        let (id, other) = (KeyId::new(1), KeyId::new(2));
        let mut presented = Vec::new();
        for id in [id, other] {
            let (text, digest) = compose(id, &[7; SECRET_BYTES]);
            presented.push(text);
            verifier.apply_keys(&[muse_proto::v1::VerifiableKey {
                id: id.number(),
                digest: digest.to_vec(),
                owner: "ann".to_owned(),
                ..Default::default()
            }]);
        }
        let layer = QuotaHeaders::new(verifier.clone(), Cookies::On);
        let headers = |key: &str| {
            let mut request = Request::new(Body::empty());
            let value = format!("Bearer {key}").parse().unwrap();
            request.headers_mut().insert(header::AUTHORIZATION, value);
            Authenticate(verifier.clone()).before(&mut request).unwrap();
            let context = layer.before(&mut request).unwrap();
            let response = QuotaHeaders::after(context, Response::new(Body::empty()));
            QUOTA_HEADERS
                .map(|name| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned()))
        };
        assert_eq!(headers(&presented[0]), [const { None }; 3]);
        let quota = QuotaState {
            username: "ann".to_owned(),
            key_id: Some(id.number()),
            limit: 100,
            used: 130,
            resets_at: 1,
        };
        verifier.apply_quotas(&[QuotaState { resets_at: i64::MAX, ..quota.clone() }]);
        let [limit, remaining, reset] = headers(&presented[0]).map(Option::unwrap);
        assert_eq!((&*limit, &*remaining), ("100", "0"));
        assert!(reset.ends_with('s') && reset.contains('h'), "{reset}");
        verifier.apply_quotas(&[quota]);
        assert_eq!(headers(&presented[0]).map(Option::unwrap), ["100", "100", "0s"]);
        assert_eq!(headers(&presented[1]), [const { None }; 3]);
        assert_eq!(headers("muse_not_a_key"), [const { None }; 3]);
    }
}
