//! muse-tests
