//! Usage accounting and quotas over real services: what is counted, what survives a crash, and how
//! soon a quota is enforced.

mod counting;
mod crash;
mod quotas;

use std::net::SocketAddr;

use muse_proto::v1::{
    EmbedRequest, ListUsageRequest, UsageGrouping, UsageRow, embedder_service_client::EmbedderServiceClient,
    usage_service_client::UsageServiceClient,
};
use muse_tests::{bearing, channel, until};
use tonic::{Status, transport::Channel};

/// The usage of a user as the auth service has stored it: with tokens, or with one API key.
async fn stored_usage(auth: SocketAddr, admin: &str, username: &str, key_id: &str) -> UsageRow {
    let request = ListUsageRequest {
        username: username.to_owned(),
        grouping: UsageGrouping::Key.into(),
        ..ListUsageRequest::default()
    };
    let listed = UsageServiceClient::new(channel(auth)).list_usage(bearing(admin, request)).await;
    let rows = listed.expect("an admin may list usage").into_inner().usage;
    rows.into_iter().find(|row| row.key_id == key_id).unwrap_or_default()
}

/// Waits until the stored usage is as expected, and returns it.
async fn until_stored(
    auth: SocketAddr,
    admin: &str,
    username: &str,
    is_expected: impl Fn(&UsageRow) -> bool,
) -> UsageRow {
    until(async || Some(stored_usage(auth, admin, username, "").await).filter(|row| is_expected(row))).await
}

fn embedder(address: SocketAddr) -> EmbedderServiceClient<Channel> {
    EmbedderServiceClient::new(channel(address))
}

/// Embeds one sentence, and returns the number of its tokens.
async fn embed(client: &mut EmbedderServiceClient<Channel>, credential: &str) -> Result<u64, Status> {
    let sentences = vec!["Where is the library?".to_owned()];
    let request = EmbedRequest { sentences, ..EmbedRequest::default() };
    let response = client.embed(bearing(credential, request)).await?.into_inner();
    Ok(response.embeddings.iter().map(|embedding| u64::from(embedding.token_count)).sum())
}
