//! muse-gateway
