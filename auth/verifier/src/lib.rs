//! muse-verifier
