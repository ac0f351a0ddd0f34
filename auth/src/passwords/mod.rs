//! Hashes passwords, checks them, and says which ones may be chosen.

mod argon2id;
mod cost;
mod hash_arena;
mod hash_pool;
mod password_hash;
mod pbkdf2;
mod policy;

pub use cost::Cost;
pub(crate) use hash_pool::{PasswordHashPool, Priority, Verdict, default_threads};
pub(crate) use pbkdf2::is_pbkdf2;
pub(crate) use policy::{LONGEST, check_new};
