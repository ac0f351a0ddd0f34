//! Migrations of the tables.

use sea_orm_migration::prelude::*;

pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(FirstTables), Box::new(SharedServer), Box::new(ApiKeys), Box::new(Usage)]
    }
}

fn text(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).text().not_null().take()
}

fn number(name: &'static str) -> ColumnDef {
    ColumnDef::new(name).big_integer().not_null().take()
}

fn id() -> ColumnDef {
    ColumnDef::new("id").big_integer().not_null().auto_increment().primary_key().take()
}

struct FirstTables;

impl MigrationName for FirstTables {
    fn name(&self) -> &str {
        "m0001_first_tables"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FirstTables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let users = Table::create()
            .table("users")
            .col(id())
            .col(text("username").unique_key())
            .col(text("password_hash"))
            .col(number("created_at"))
            .take();
        let revoked_tokens = Table::create()
            .table("revoked_tokens")
            .col(id())
            .col(text("jti").unique_key())
            .col(number("expires_at"))
            .take();
        let by_expiry = Index::create()
            .name("revoked_tokens_expires_at")
            .table("revoked_tokens")
            .col("expires_at")
            .take();
        let signing_keys = Table::create()
            .table("signing_keys")
            .col(text("kid").primary_key())
            .col(ColumnDef::new("private_key").blob().not_null())
            .col(number("created_at"))
            .take();

        for table in [users, revoked_tokens, signing_keys] {
            manager.create_table(table).await?;
        }
        manager.create_index(by_expiry).await
    }
}

/// Roles, revocations of all of a user's tokens, several keys, failed logins.
struct SharedServer;

impl MigrationName for SharedServer {
    fn name(&self) -> &str {
        "m0002_shared_server"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SharedServer {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // SQLite adds one column per statement.
        for (table, column) in [
            ("users", text("role").default("user").take()),
            ("users", ColumnDef::new("disabled").boolean().not_null().default(false).take()),
            ("users", number("generation").default(0).take()),
            ("signing_keys", ColumnDef::new("derivation").big_integer().take()),
            ("signing_keys", number("active_from").default(0).take()),
            ("signing_keys", number("longest_lifetime").default(0).take()),
        ] {
            manager.alter_table(Table::alter().table(table).add_column(column).take()).await?;
        }
        let revocations = Table::create()
            .table("revocations")
            .col(id())
            .col(ColumnDef::new("jti").text().unique_key())
            .col(ColumnDef::new("username").text())
            .col(number("expires_at"))
            .take();
        let ended_refresh_tokens = Table::create()
            .table("ended_refresh_tokens")
            .col(text("jti").primary_key())
            .col(number("ended_at"))
            .col(number("expires_at"))
            .take();
        let login_failures = Table::create()
            .table("login_failures")
            .col(text("subject").primary_key())
            .col(number("failures"))
            .col(number("last_failed_at"))
            .take();
        let known_addresses = Table::create()
            .table("known_addresses")
            .col(text("subject").primary_key())
            .col(number("last_login_at"))
            .take();
        let revocation_log = Table::create().table("revocation_log").col(text("name").primary_key()).take();
        for table in [revocations, ended_refresh_tokens, login_failures, known_addresses, revocation_log] {
            manager.create_table(table).await?;
        }
        for column in ["expires_at", "username"] {
            let index =
                Index::create().name(format!("revocations_{column}")).table("revocations").col(column).take();
            manager.create_index(index).await?;
        }

        let revoked = Query::select()
            .columns(["jti", "expires_at"])
            .from("revoked_tokens")
            .order_by("id", Order::Asc)
            .take();
        let moved = Query::insert()
            .into_table("revocations")
            .columns(["jti", "expires_at"])
            .select_from(revoked)
            .map_err(|failure| DbErr::Custom(failure.to_string()))?
            .take();
        manager.execute(moved).await?;
        manager.drop_table(Table::drop().table("revoked_tokens").take()).await?;
        // Users had no roles before; the first user becomes the admin.
        let first = Query::update()
            .table("users")
            .value("role", "admin")
            .and_where(Expr::col("username").eq("admin"))
            .take();
        manager.execute(first).await
    }
}

/// API keys, and the number of their last change.
struct ApiKeys;

impl MigrationName for ApiKeys {
    fn name(&self) -> &str {
        "m0003_api_keys"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for ApiKeys {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let flag = |name| ColumnDef::new(name).boolean().not_null().default(false).take();
        let api_keys = Table::create()
            .table("api_keys")
            .col(number("id").primary_key())
            .col(number("version"))
            .col(text("name"))
            .col(text("owner"))
            .col(ColumnDef::new("digest").blob().not_null())
            .col(number("created_at"))
            .col(text("created_by"))
            .col(number("expires_at").default(0))
            .col(flag("disabled"))
            .col(flag("bulk"))
            .col(number("deleted_at").default(0))
            .col(number("last_used_day").default(0))
            .col(text("last_used_from").default(""))
            .take();
        manager.create_table(api_keys).await?;
        for column in ["version", "owner"] {
            let index =
                Index::create().name(format!("api_keys_{column}")).table("api_keys").col(column).take();
            manager.create_index(index).await?;
        }
        let by_creation =
            Index::create().name("api_keys_created_at").table("api_keys").col("created_at").col("id").take();
        manager.create_index(by_creation).await?;
        for column in [number("key_version").default(1).take(), number("key_pruned_to").default(0).take()] {
            manager.alter_table(Table::alter().table("revocation_log").add_column(column).take()).await?;
        }
        Ok(())
    }
}

/// Usage and quotas.
struct Usage;

impl MigrationName for Usage {
    fn name(&self) -> &str {
        "m0004_usage"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Usage {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let usage = Table::create()
            .table("usage")
            .col(number("span"))
            .col(number("start"))
            .col(text("username"))
            .col(number("key_id"))
            .col(number("requests"))
            .col(number("sentences"))
            .col(number("tokens"))
            .col(number("refused"))
            .primary_key(Index::create().col("span").col("start").col("username").col("key_id"))
            .take();
        let usage_reports = Table::create()
            .table("usage_reports")
            .col(text("reporter").primary_key())
            .col(number("sequence"))
            .col(number("reported_at"))
            .take();
        let quotas = Table::create()
            .table("quotas")
            .col(text("username"))
            .col(number("key_id"))
            .col(number("tokens"))
            .col(text("period"))
            .col(number("period_start"))
            .col(number("used"))
            .col(number("version"))
            .primary_key(Index::create().col("username").col("key_id"))
            .take();
        for table in [usage, usage_reports, quotas] {
            manager.create_table(table).await?;
        }
        let of_user = Index::create()
            .name("usage_username")
            .table("usage")
            .col("username")
            .col("span")
            .col("start")
            .take();
        let by_version = Index::create().name("quotas_version").table("quotas").col("version").take();
        for index in [of_user, by_version] {
            manager.create_index(index).await?;
        }
        let version = number("quota_version").default(0).take();
        manager.alter_table(Table::alter().table("revocation_log").add_column(version).take()).await
    }
}
