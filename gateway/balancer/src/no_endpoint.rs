//! The response to a call for which there is no endpoint.

use std::time::Duration;

use muse_proto::{Error, Reason};
use tonic::Status;

use super::{attempt::CallResult, cluster::Cluster, model::ModelIdentity};

/// When a caller may try again if there is no embedder for the call.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// No embedder was resolved, or none has reported its model.
#[derive(Debug, thiserror::Error)]
#[error("no embedder is known")]
struct NoEmbedder;

/// The response to a call for which there is no endpoint with `model`; none if no model is elected.
pub(super) fn no_endpoint(cluster: &Cluster, model: Option<&ModelIdentity>) -> CallResult {
    let election = cluster.election();
    let changed = model.zip(election.served()).filter(|(model, served)| model != served);
    let text = match changed {
        Some((old, new)) => {
            format!("the embedders have {new} now, no longer {old}; the call can be sent again")
        }
        None => election.unusable().ok_or(NoEmbedder)?,
    };
    Ok(Status::from(Error::new(Reason::Unavailable, text).with_retry_after(RETRY_AFTER)).into_http())
}
