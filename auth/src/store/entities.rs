//! The tables. Times are Unix times in seconds, as in tokens.

/// Users.
pub(crate) mod user {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "users")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(unique)]
        pub(crate) username: String,
        pub(crate) password_hash: String,
        pub(crate) created_at: i64,
        /// See [`crate::Role::as_str`].
        pub(crate) role: String,
        pub(crate) disabled: bool,
        /// The id of the last revocation of all of the user's tokens, otherwise 0. New tokens
        /// contain it.
        pub(crate) generation: i64,
    }

    // Not derived: it would print the hash.
    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("User").field("username", &self.username).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Revocations: of a token or a family (`jti`), or of all tokens of a user (`username`).
///
/// The id is the cursor of `WatchRevocations`: it increases in the order of commits. The id of a
/// user's revocation is the generation of the user's later tokens.
pub(super) mod revocation {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "revocations")]
    pub(crate) struct Model {
        #[sea_orm(primary_key)]
        pub(crate) id: i64,
        #[sea_orm(unique)]
        pub(crate) jti: Option<String>,
        pub(crate) username: Option<String>,
        pub(crate) expires_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Refresh tokens that were exchanged for new ones.
pub(super) mod ended_refresh_token {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "ended_refresh_tokens")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) jti: String,
        pub(crate) ended_at: i64,
        pub(crate) expires_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Signing keys.
pub(super) mod signing_key {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "signing_keys")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) kid: String,
        /// Empty if the key is derived from a secret.
        #[sea_orm(column_type = "Blob")]
        pub(crate) private_key: Vec<u8>,
        pub(crate) created_at: i64,
        /// The number of the key among those derived from a secret; `None` for a random key.
        pub(crate) derivation: Option<i64>,
        pub(crate) active_from: i64,
        /// The longest validity of a token that it signed, in seconds.
        pub(crate) longest_lifetime: i64,
    }

    // Not derived: it would print the private key.
    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Counts of failed logins. The subject is a digest of a name, an address, or both.
pub(super) mod login_failure {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "login_failures")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) subject: String,
        pub(crate) failures: i64,
        pub(crate) last_failed_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Addresses from which users have logged in. The subject is a digest of name and address.
pub(super) mod known_address {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "known_addresses")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) subject: String,
        pub(crate) last_login_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The name of the revocation log, in a single row.
pub(super) mod revocation_log {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "revocation_log")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) name: String,
        /// The number of the last change of an API key, which is a cursor of verifiers. It only
        /// increases, from 1.
        pub(crate) key_version: i64,
        /// The number of the last change whose key was removed; 0 for none. An earlier cursor misses
        /// a deletion.
        pub(crate) key_pruned_to: i64,
        /// The number of the last change of a quota or of its use.
        pub(crate) quota_version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// API keys. A deleted key is stored without its digest for 30 days, so that its use is distinguished
/// from a typing error.
pub(crate) mod api_key {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "api_keys")]
    pub(crate) struct Model {
        /// The permanent id: a random number of 60 bits.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) id: i64,
        /// The number of its last change.
        pub(crate) version: i64,
        pub(crate) name: String,
        /// The name of the user whom the calls of the key count for.
        pub(crate) owner: String,
        /// The SHA-256 of the secret; empty if the key was deleted.
        #[sea_orm(column_type = "Blob")]
        pub(crate) digest: Vec<u8>,
        pub(crate) created_at: i64,
        /// The name of a user; empty for the operator.
        pub(crate) created_by: String,
        /// 0 for never.
        pub(crate) expires_at: i64,
        pub(crate) disabled: bool,
        pub(crate) bulk: bool,
        /// 0 if it was not deleted.
        pub(crate) deleted_at: i64,
        /// The start of the day on which it was last used; 0 for never.
        pub(crate) last_used_day: i64,
        pub(crate) last_used_from: String,
    }

    // Not derived: the digest is not for logs.
    impl std::fmt::Debug for Model {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.debug_struct("ApiKey").field("id", &self.id).field("owner", &self.owner).finish_non_exhaustive()
        }
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The usage of a user within an hour or a day, with tokens or with an API key.
pub(super) mod usage {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage")]
    pub(crate) struct Model {
        /// The seconds of an hour or of a day.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) span: i64,
        /// The start of the hour or day.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) start: i64,
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) username: String,
        /// The id of the API key; 0 for calls with tokens.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) key_id: i64,
        pub(crate) requests: i64,
        pub(crate) sentences: i64,
        pub(crate) tokens: i64,
        pub(crate) refused: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// The number of the last report of usage of each embedder process.
pub(super) mod usage_report {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "usage_reports")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) reporter: String,
        pub(crate) sequence: i64,
        pub(crate) reported_at: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// Quotas, of users and of API keys, and how much of them is used.
pub(crate) mod quota {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "quotas")]
    pub(crate) struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) username: String,
        /// The id of the API key; 0 for the quota of the user.
        #[sea_orm(primary_key, auto_increment = false)]
        pub(crate) key_id: i64,
        /// 0 for a quota that was removed. It is stored for a day, until all verifiers know.
        pub(crate) tokens: i64,
        /// See [`crate::QuotaPeriod::as_str`].
        pub(crate) period: String,
        /// The start of the period that `used` belongs to.
        pub(crate) period_start: i64,
        pub(crate) used: i64,
        /// The number of its last change.
        pub(crate) version: i64,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub(crate) enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
