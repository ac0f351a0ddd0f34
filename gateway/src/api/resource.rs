//! Responses with a description of a key or a user.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use serde::Serialize;

use super::{http_response::json, problem::Problem};

/// The description in a response of the auth service, which always has one.
pub(super) fn described<M, D: From<M>>(message: Option<M>) -> Result<D, Problem> {
    message.map(D::from).ok_or_else(Problem::fault)
}

/// The response to a request that has created what is at the path `location`.
pub(super) fn created(location: String, body: &impl Serialize) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(location).map_err(|_| Problem::fault())?;
    let mut response = json(StatusCode::CREATED, body);
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}
