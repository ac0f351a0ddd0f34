//! Quotas in the bodies of requests and responses.

use muse_proto::{Error, Reason, v1};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::json_request::WholeNumber;

/// A limit on the tokens of a user or an API key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Quota {
    /// Tokens within each period.
    #[schema(value_type = i64, example = 1_000_000, minimum = 1, maximum = 1_000_000_000_000_000_i64)]
    tokens: WholeNumber,
    period: QuotaPeriod,
}

/// A day or a calendar month (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum QuotaPeriod {
    Day,
    Month,
}

impl Quota {
    /// The message of a quota; without one that which removes it.
    pub(super) fn message_or_none(quota: Option<Self>) -> Result<v1::Quota, Error> {
        quota.map_or_else(|| Ok(v1::Quota::default()), Self::message)
    }

    /// The message.
    pub(super) fn message(self) -> Result<v1::Quota, Error> {
        let Self { tokens: WholeNumber(tokens), period } = self;
        let tokens = u64::try_from(tokens).ok().filter(|&tokens| tokens > 0);
        let tokens = tokens.ok_or_else(|| {
            let text = "quota: tokens is at least 1; a quota of null removes it";
            Error::new(Reason::InvalidArgument, text).with_field("quota")
        })?;
        let period = match period {
            QuotaPeriod::Day => v1::QuotaPeriod::Day,
            QuotaPeriod::Month => v1::QuotaPeriod::Month,
        };
        Ok(v1::Quota { tokens, period: period.into() })
    }
}

impl From<v1::Quota> for Quota {
    fn from(quota: v1::Quota) -> Self {
        let period = match quota.period() {
            v1::QuotaPeriod::Unspecified | v1::QuotaPeriod::Day => QuotaPeriod::Day,
            v1::QuotaPeriod::Month => QuotaPeriod::Month,
        };
        Self { tokens: WholeNumber(i64::try_from(quota.tokens).unwrap_or(i64::MAX)), period }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json, to_value};

    use super::*;

    #[test]
    fn quota_round_trips_through_its_message() {
        for body in [json!({ "tokens": 5, "period": "day" }), json!({ "tokens": 7, "period": "month" })] {
            let quota: Quota = from_value(body.clone()).unwrap();
            let message = Quota::message_or_none(Some(quota)).unwrap();
            assert_eq!(to_value(Quota::from(message)).unwrap(), body);
        }
        assert_eq!(Quota::message_or_none(None), Ok(v1::Quota::default()));
        for tokens in [0, -1] {
            let quota = from_value(json!({ "tokens": tokens, "period": "day" })).unwrap();
            assert_eq!(Quota::message_or_none(Some(quota)).unwrap_err().field(), Some("quota"), "{tokens}");
        }
        for invalid in [json!({ "tokens": 5 }), json!({ "tokens": 1.5, "period": "day" }), json!(5)] {
            assert!(from_value::<Quota>(invalid.clone()).is_err(), "{invalid}");
        }
    }
}
