//! muse-embedder
