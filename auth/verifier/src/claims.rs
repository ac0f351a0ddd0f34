//! What a token says.

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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_those_of_the_old_service() {
        let claims = Claims {
            fresh: true,
            iat: 1,
            jti: "j".to_owned(),
            kind: TokenKind::Refresh,
            sub: "admin".to_owned(),
            nbf: 1,
            exp: 2,
        };
        let json = r#"{"fresh":true,"iat":1,"jti":"j","type":"refresh","sub":"admin","nbf":1,"exp":2}"#;
        assert_eq!(serde_json::to_string(&claims).unwrap(), json);
    }
}
