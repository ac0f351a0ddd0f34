-- A database as muse-auth at e1c7bb0 wrote it: the admin maria, the disabled user joe, whose tokens are revoked, and
-- a signing key. The password of both is "a long password".
CREATE TABLE "ended_refresh_tokens" ( "jti" text NOT NULL PRIMARY KEY, "ended_at" integer NOT NULL, "expires_at" integer NOT NULL );
CREATE TABLE "known_addresses" ( "subject" text NOT NULL PRIMARY KEY, "last_login_at" integer NOT NULL );
CREATE TABLE "login_failures" ( "subject" text NOT NULL PRIMARY KEY, "failures" integer NOT NULL, "last_failed_at" integer NOT NULL );
CREATE TABLE "revocation_log" ( "name" text NOT NULL PRIMARY KEY );
INSERT INTO "revocation_log" VALUES('c8652c50-f7d5-4c79-8faf-d5847989c0d5');
CREATE TABLE "revocations" ( "id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "jti" text UNIQUE, "username" text, "expires_at" integer NOT NULL );
INSERT INTO "revocations" VALUES(1,NULL,'joe',4102444800);
INSERT INTO "revocations" VALUES(2,NULL,'joe',4102444800);
CREATE TABLE "seaql_migrations" ( "version" varchar NOT NULL PRIMARY KEY, "applied_at" integer NOT NULL );
INSERT INTO "seaql_migrations" VALUES('m0001_first_tables',1795922787);
INSERT INTO "seaql_migrations" VALUES('m0002_shared_server',1795922787);
CREATE TABLE "signing_keys" ( "kid" text NOT NULL PRIMARY KEY, "private_key" blob NOT NULL, "created_at" integer NOT NULL , "derivation" integer, "active_from" integer NOT NULL DEFAULT 0, "longest_lifetime" integer NOT NULL DEFAULT 0);
INSERT INTO "signing_keys" VALUES('DDqHLLDX-PVmHtORU5qxGwm1Tv7yGCrJjVYolEPuf4M',X'1200850A229D6B2F217C9BC93CEA7E05634011C98709901033A6359EAD7EDCA5',1795922787,NULL,1795922787,2592000);
CREATE TABLE "users" ( "id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "username" text NOT NULL UNIQUE, "password_hash" text NOT NULL, "created_at" integer NOT NULL , "role" text NOT NULL DEFAULT 'user', "disabled" boolean NOT NULL DEFAULT FALSE, "generation" integer NOT NULL DEFAULT 0);
INSERT INTO "users" VALUES(1,'maria','$argon2id$v=19$m=19456,t=2,p=1$5PwhAgNMA5d1fGsJBDH4gA$3zf2Q3fspDeMU03SupFauD5WrNi6ig2hFvdgGtXb0dY',1795922787,'admin',0,0);
INSERT INTO "users" VALUES(2,'joe','$argon2id$v=19$m=19456,t=2,p=1$qeyvP28FV9sqm/jPK8A6Eg$lnVN+yf7zLlDAIhhLwTG3GctPrunqhrrWxUjM7b0OtA',1795922787,'user',1,2);
CREATE INDEX "revocations_expires_at" ON "revocations" ("expires_at");
CREATE INDEX "revocations_username" ON "revocations" ("username");
