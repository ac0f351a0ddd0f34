//! What a token says.

use http::Extensions;
use muse_telemetry::request_telemetry::{Caller, RequestContext};
use serde::{Deserialize, Serialize};

/// What a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// For every call but the one that asks for a new access token.
    Access,
    /// For asking for a new access token.
    Refresh,
}

/// The claims of a token; their names are those of the service that this one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whether the token came from a login, not from a refresh token.
    #[serde(default)]
    pub fresh: bool,
    /// When it was issued, in seconds since 1970.
    #[serde(default)]
    pub iat: i64,
    /// Its id, by which it is revoked.
    pub jti: String,
    /// What it is for.
    #[serde(rename = "type")]
    pub kind: TokenKind,
    /// The user's name.
    pub sub: String,
    /// It holds from this time on, in seconds since 1970.
    #[serde(default)]
    pub nbf: i64,
    /// It no longer holds from this time on, in seconds since 1970.
    pub exp: i64,
    /// How often all tokens of the user had been revoked when it was issued.
    #[serde(rename = "gen", default)]
    pub generation: i64,
    /// What it has in common with the tokens that came from the same login, where they end together.
    #[serde(rename = "fam", default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Whether the user was an admin when it was issued. It says who asks, and allows nothing: what takes an admin looks
    /// at what the user is by then.
    #[serde(rename = "adm", default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

impl Claims {
    /// Records the user as the caller of the request with these extensions, for its metrics and log lines.
    pub fn record(&self, extensions: &Extensions) {
        let class = if self.admin { Caller::Admin } else { Caller::User };
        RequestContext::record_caller(extensions, class, &self.sub);
    }

    /// The id by which the token is revoked along with those that end with it: that of its family, or its own.
    #[must_use]
    pub fn family_id(&self) -> &str {
        self.family.as_deref().unwrap_or(&self.jti)
    }

    /// The id by which the token is revoked where its holder asks for that: an access token ends alone, a refresh
    /// token with those that end with it.
    #[must_use]
    pub fn revocation_id(&self) -> &str {
        match self.kind {
            TokenKind::Access => &self.jti,
            TokenKind::Refresh => self.family_id(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_replaced_service() {
        let mut claims = Claims {
            fresh: true,
            iat: 1,
            jti: "j".to_owned(),
            kind: TokenKind::Refresh,
            sub: "admin".to_owned(),
            nbf: 1,
            exp: 2,
            generation: 3,
            family: None,
            admin: false,
        };
        let old = r#"{"fresh":true,"iat":1,"jti":"j","type":"refresh","sub":"admin","nbf":1,"exp":2"#;
        assert_eq!(serde_json::to_string(&claims).unwrap(), format!(r#"{old},"gen":3}}"#));
        assert_eq!(claims.family_id(), "j");

        claims.family = Some("f".to_owned());
        assert_eq!(serde_json::to_string(&claims).unwrap(), format!(r#"{old},"gen":3,"fam":"f"}}"#));
        assert_eq!((claims.family_id(), claims.revocation_id()), ("f", "f"));
        let access = Claims { kind: TokenKind::Access, ..claims.clone() };
        assert_eq!(access.revocation_id(), "j");

        let without: Claims = serde_json::from_str(&format!("{old}}}")).unwrap();
        assert_eq!((without.generation, without.family, without.admin), (0, None, false));
        claims.admin = true;
        assert!(serde_json::to_string(&claims).unwrap().ends_with(r#""fam":"f","adm":true}"#));
    }
}
