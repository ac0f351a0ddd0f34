//! Password hashing, and the rules for new passwords.

mod argon2id;
mod cost;
mod hash_arena;
mod hash_pool;
mod normal_form;
mod password_hash;
mod pbkdf2;
mod policy;

pub use cost::Cost;
pub(crate) use hash_pool::{PasswordCheck, PasswordHashPool, Priority, default_threads};
pub(crate) use normal_form::nfc;
pub(crate) use pbkdf2::check_pbkdf2;
pub(crate) use policy::{MAX_PASSWORD_BYTES, check_new};
