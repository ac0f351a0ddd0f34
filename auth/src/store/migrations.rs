//! The history of the tables.

use sea_orm_migration::prelude::*;

pub(super) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![Box::new(FirstTables)]
    }
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
        let id = |name: &'static str| {
            ColumnDef::new(name).big_integer().not_null().auto_increment().primary_key().take()
        };
        let text = |name: &'static str| ColumnDef::new(name).text().not_null().take();
        let number = |name: &'static str| ColumnDef::new(name).big_integer().not_null().take();

        let users = Table::create()
            .table("users")
            .col(id("id"))
            .col(text("username").unique_key())
            .col(text("password_hash"))
            .col(number("created_at"))
            .take();
        let revoked_tokens = Table::create()
            .table("revoked_tokens")
            .col(id("id"))
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

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["users", "revoked_tokens", "signing_keys"] {
            manager.drop_table(Table::drop().table(table).take()).await?;
        }
        Ok(())
    }
}
