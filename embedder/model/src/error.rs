//! Errors of the model.

/// Why loading or running the model failed.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// libtorch cannot load the file.
    #[error("cannot load the model: {0}")]
    Load(String),
    /// The ids and lengths are not a valid batch.
    #[error("not a batch: {0}")]
    Batch(String),
    /// libtorch failed in the forward pass.
    #[error("the forward pass failed: {0}")]
    Forward(String),
}

// libtorch appends a stack trace to its messages.
pub(crate) fn first_line(error: &tch::TchError) -> String {
    error.to_string().lines().find(|line| !line.trim().is_empty()).unwrap_or("no message").trim().to_owned()
}
