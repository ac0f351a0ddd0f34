//! muse-auth
