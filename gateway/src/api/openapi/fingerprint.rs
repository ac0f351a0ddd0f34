//! The header `muse-fingerprint` of requests and responses in the OpenAPI document.

use muse_proto::FINGERPRINT;
use utoipa::{
    Modify,
    openapi::{
        HeaderBuilder, ObjectBuilder, OpenApi, RefOr, Required, Type,
        path::{Operation, ParameterBuilder, ParameterIn},
    },
};

use crate::middleware::uses_model;

/// Adds the header to all routes that use the model.
pub(super) struct FingerprintHeader;

impl Modify for FingerprintHeader {
    fn modify(&self, document: &mut OpenApi) {
        for (_, route) in document.paths.paths.iter_mut().filter(|(path, _)| uses_model(path)) {
            for operation in [&mut route.get, &mut route.post].into_iter().flatten() {
                add_header(operation);
            }
        }
    }
}

fn add_header(operation: &mut Operation) {
    let schema = || {
        let text = ObjectBuilder::new().schema_type(Type::String);
        text.pattern(Some("^[a-z0-9]+-[0-9a-f]{12}$")).examples(["f32-3fa9c07b12de"])
    };
    let requirement = ParameterBuilder::new()
        .name(FINGERPRINT.as_str())
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .schema(Some(schema()))
        .description(Some("The fingerprint that the model must have; otherwise the status is 412"));
    operation.parameters.get_or_insert_default().push(requirement.build().into());
    // All errors have it; the document shows it where it is of use.
    for status in ["200", "412"] {
        if let Some(RefOr::T(response)) = operation.responses.responses.get_mut(status) {
            let header = HeaderBuilder::new().schema(Some(schema()));
            let header = header.description(Some("The fingerprint of the model")).build();
            response.headers.insert(FINGERPRINT.as_str().to_owned(), header.into());
        }
    }
}
