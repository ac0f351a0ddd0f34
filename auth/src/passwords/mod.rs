//! Hashes passwords, checks them, and says which ones may be chosen.

mod argon2id;
mod cost;
mod memory;
mod pbkdf2;
mod policy;
mod pool;
mod stored;

pub use cost::Cost;
pub(crate) use pbkdf2::is_pbkdf2;
pub(crate) use policy::{LONGEST, check_new};
pub(crate) use pool::{Hashers, Priority, Verdict, default_threads};
