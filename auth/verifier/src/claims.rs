//! The claims of tokens.

use http::Extensions;
use muse_telemetry::request_telemetry::{Caller, RequestContext};
use serde::{Deserialize, Serialize};

/// The kind of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenKind {
    /// Authorises all calls except the refresh.
    Access,
    /// Authorises the refresh: a new access token.
    Refresh,
}

/// The claims of a token, with the names of the service that this one replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Whether the token was issued for a login, not for a refresh.
    #[serde(default)]
    pub fresh: bool,
    /// Unix time of the issue, in seconds.
    #[serde(default)]
    pub iat: i64,
    /// The id of the token, by which it is revoked.
    pub jti: String,
    /// The kind of the token.
    #[serde(rename = "type")]
    pub kind: TokenKind,
    /// The name of the user.
    pub sub: String,
    /// Unix time from which on the token is valid, in seconds.
    #[serde(default)]
    pub nbf: i64,
    /// Unix time from which on the token is not valid any more, in seconds.
    pub exp: i64,
    /// Grows with each revocation of all tokens of the user; older tokens have a lower one.
    #[serde(rename = "gen", default)]
    pub generation: i64,
    /// The id of the family, the tokens of one login, if refresh tokens are rotated.
    #[serde(rename = "fam", default, skip_serializing_if = "Option::is_none")]
    pub family: Option<String>,
    /// Whether the user was an admin at the time of the issue. It is for telemetry and grants no
    /// rights: the auth service checks the current role.
    #[serde(rename = "adm", default, skip_serializing_if = "std::ops::Not::not")]
    pub admin: bool,
}

impl Claims {
    /// Records the user as the caller of the request with these extensions, for its metrics and log
    /// lines.
    pub fn record(&self, extensions: &Extensions) {
        let class = if self.admin { Caller::Admin } else { Caller::User };
        RequestContext::record_caller(extensions, class, &self.sub);
    }

    /// The id that revokes the token with its family, or the token alone if it has none.
    #[must_use]
    pub fn family_id(&self) -> &str {
        self.family.as_deref().unwrap_or(&self.jti)
    }

    /// The id that a logout with this token revokes: the token alone if it is an access token, its
    /// family if it is a refresh token.
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
    fn claims_have_the_names_of_the_replaced_service() {
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
