//! gRPC server reflection (`grpc.reflection.v1` and `v1alpha`) of the services that users can call.
//!
//! This is own code over the messages of `tonic-reflection`: the service of that crate ends the stream at an unknown symbol, repeats
//! a symbol of any size in the trailers, and describes every service of a file. Reflection is public, so requests and streams are
//! limited.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use muse_proto::FILE_DESCRIPTOR_SET;
use prost::Message;
use prost_types::{DescriptorProto, FileDescriptorProto, FileDescriptorSet, ServiceDescriptorProto};
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::FILE_DESCRIPTOR_SET as HEALTH_DESCRIPTOR_SET;
use tonic_reflection::pb;

/// The services that users can call.
pub(crate) const SERVICES: &[&str] = &[
    "muse.v1.AuthService",
    "muse.v1.EmbedderService",
    "muse.v1.KeyService",
    "muse.v1.UsageService",
    "muse.v1.UserService",
    "grpc.health.v1.Health",
];
/// Maximum bytes of a request, which the response repeats.
const REQUEST_BYTES: usize = 4 << 10;
/// Maximum requests of a stream.
const REQUESTS: usize = 1_000;
/// Maximum duration of a stream.
const STREAM_WITHIN: Duration = Duration::from_secs(60);

/// The descriptors of `services`, without other services and the messages that only those use.
#[derive(Debug)]
pub(crate) struct Descriptors {
    services: Vec<&'static str>,
    /// By their names.
    files: HashMap<String, Arc<[u8]>>,
    /// The file of each service, method, message and enum, by its full name.
    symbols: HashMap<String, Arc<[u8]>>,
    messages: HashSet<String>,
}

impl Descriptors {
    /// The services of these names, and the reflection service that the set `own` describes.
    fn new(services: &[&'static str], own: &[u8]) -> Result<Self, prost::DecodeError> {
        let mut descriptors = Self {
            services: services.to_vec(),
            files: HashMap::new(),
            symbols: HashMap::new(),
            messages: HashSet::new(),
        };
        for set in [FILE_DESCRIPTOR_SET, HEALTH_DESCRIPTOR_SET] {
            for file in FileDescriptorSet::decode(set)?.file {
                descriptors.add(without_internals(file, services));
            }
        }
        for file in FileDescriptorSet::decode(own)?.file {
            descriptors.add(file);
        }
        Ok(descriptors)
    }

    fn add(&mut self, file: FileDescriptorProto) {
        let encoded: Arc<[u8]> = file.encode_to_vec().into();
        let package = file.package().to_owned();
        for message in &file.message_type {
            self.add_message(&package, message, &encoded);
        }
        for kind in &file.enum_type {
            self.symbols.insert(join(&package, kind.name()), Arc::clone(&encoded));
        }
        for service in &file.service {
            let name = join(&package, service.name());
            for method in &service.method {
                self.symbols.insert(join(&name, method.name()), Arc::clone(&encoded));
            }
            self.symbols.insert(name, Arc::clone(&encoded));
        }
        self.files.insert(file.name().to_owned(), encoded);
    }

    fn add_message(&mut self, scope: &str, message: &DescriptorProto, file: &Arc<[u8]>) {
        let name = join(scope, message.name());
        for nested in &message.nested_type {
            self.add_message(&name, nested, file);
        }
        for kind in &message.enum_type {
            self.symbols.insert(join(&name, kind.name()), Arc::clone(file));
        }
        self.symbols.insert(name.clone(), Arc::clone(file));
        self.messages.insert(name);
    }
}

fn join(scope: &str, name: &str) -> String {
    if scope.is_empty() { name.to_owned() } else { format!("{scope}.{name}") }
}

/// A file without the services that are not in `public`, and without the messages that only those use.
fn without_internals(mut file: FileDescriptorProto, public: &[&str]) -> FileDescriptorProto {
    let package = file.package().to_owned();
    let all = std::mem::take(&mut file.service);
    let (public, internal): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|service| public.contains(&join(&package, service.name()).as_str()));
    let (used, hidden) = (messages_of(&public, &file), messages_of(&internal, &file));
    file.service = public;
    file.message_type.retain(|message| {
        let name = format!(".{}", join(&package, message.name()));
        used.contains(&name) || !hidden.contains(&name)
    });
    // The comments, whose positions are no longer right.
    file.source_code_info = None;
    file
}

/// The full names of the messages of a file that services use, directly or in fields.
fn messages_of(services: &[ServiceDescriptorProto], file: &FileDescriptorProto) -> HashSet<String> {
    let methods = services.iter().flat_map(|service| &service.method);
    let mut open: Vec<String> = methods
        .flat_map(|method| [method.input_type().to_owned(), method.output_type().to_owned()])
        .collect();
    let mut used = HashSet::new();
    while let Some(name) = open.pop() {
        let found = file
            .message_type
            .iter()
            .find(|message| format!(".{}", join(file.package(), message.name())) == name);
        if let Some(message) = found
            && used.insert(name)
        {
            open.extend(types_of(message));
        }
    }
    used
}

/// The names of the types of a message's fields, those of nested messages included.
fn types_of(message: &DescriptorProto) -> Vec<String> {
    let own = message.field.iter().map(|field| field.type_name().to_owned());
    own.chain(message.nested_type.iter().flat_map(types_of)).collect()
}

/// The status that ends the stream after a request that cannot be read.
fn unreadable(failure: &Status) -> Status {
    match failure.code() {
        Code::OutOfRange | Code::ResourceExhausted => {
            Status::resource_exhausted(format!("a reflection request may have {REQUEST_BYTES} bytes"))
        }
        Code::Internal | Code::InvalidArgument => {
            Status::invalid_argument("this is not a message of type ServerReflectionRequest")
        }
        code => Status::new(code, "the reflection request cannot be read"),
    }
}

/// One module for each version: their messages are alike, but of different types.
macro_rules! version {
    ($version:ident) => {
        pub(crate) mod $version {
            use pb::$version::{
                ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse, ListServiceResponse,
                ServerReflectionRequest, ServerReflectionResponse, ServiceResponse,
                server_reflection_request::MessageRequest,
                server_reflection_response::MessageResponse,
                server_reflection_server::{ServerReflection, ServerReflectionServer},
            };

            use super::*;

            /// The reflection service of this version.
            #[derive(Debug)]
            pub(crate) struct Reflection(Arc<Descriptors>);

            /// A server of reflection.
            pub(crate) fn server() -> Result<ServerReflectionServer<Reflection>, prost::DecodeError> {
                let descriptors = Descriptors::new(SERVICES, pb::$version::FILE_DESCRIPTOR_SET)?;
                let service = Reflection(Arc::new(descriptors));
                Ok(ServerReflectionServer::new(service).max_decoding_message_size(REQUEST_BYTES))
            }

            #[tonic::async_trait]
            impl ServerReflection for Reflection {
                type ServerReflectionInfoStream =
                    BoxStream<'static, Result<ServerReflectionResponse, Status>>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let descriptors = Arc::clone(&self.0);
                    let end = Instant::now() + STREAM_WITHIN;
                    let open = Some((request.into_inner(), 0));
                    let responses = stream::unfold(open, move |open| {
                        let descriptors = Arc::clone(&descriptors);
                        async move {
                            let (mut requests, count) = open?;
                            let outcome = match timeout_at(end, requests.message()).await {
                                Err(_) => Err(Status::deadline_exceeded(format!(
                                    "a reflection stream may last {} s",
                                    STREAM_WITHIN.as_secs(),
                                ))),
                                Ok(Ok(None)) => return None,
                                Ok(Ok(Some(_))) if count == REQUESTS => Err(Status::resource_exhausted(
                                    format!("a reflection stream may have {REQUESTS} requests"),
                                )),
                                Ok(Ok(Some(request))) => Ok(respond(&descriptors, request)),
                                Ok(Err(failure)) => Err(unreadable(&failure)),
                            };
                            let open = outcome.is_ok().then_some((requests, count + 1));
                            Some((outcome, open))
                        }
                    });
                    Ok(Response::new(responses.boxed()))
                }
            }

            fn respond(known: &Descriptors, request: ServerReflectionRequest) -> ServerReflectionResponse {
                let response = request.message_request.as_ref().map(|message| match message {
                    MessageRequest::FileByFilename(name) => found(known.files.get(name), "file"),
                    MessageRequest::FileContainingSymbol(name) => found(known.symbols.get(name), "symbol"),
                    MessageRequest::FileContainingExtension(_) => {
                        error(Code::NotFound, "there are no extensions")
                    }
                    MessageRequest::AllExtensionNumbersOfType(name) if known.messages.contains(name) => {
                        MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                            base_type_name: name.clone(),
                            extension_number: Vec::new(),
                        })
                    }
                    MessageRequest::AllExtensionNumbersOfType(_) => {
                        error(Code::NotFound, "there is no message type of this name")
                    }
                    MessageRequest::ListServices(_) => {
                        let names =
                            known.services.iter().map(|name| ServiceResponse { name: (*name).to_owned() });
                        MessageResponse::ListServicesResponse(ListServiceResponse {
                            service: names.collect(),
                        })
                    }
                });
                let response = response
                    .unwrap_or_else(|| error(Code::InvalidArgument, "the request has no message_request"));
                ServerReflectionResponse {
                    valid_host: request.host.clone(),
                    original_request: Some(request),
                    message_response: Some(response),
                }
            }

            fn found(file: Option<&Arc<[u8]>>, what: &str) -> MessageResponse {
                match file {
                    Some(file) => MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                        file_descriptor_proto: vec![file.to_vec()],
                    }),
                    None => error(Code::NotFound, &format!("there is no {what} of this name")),
                }
            }

            fn error(code: Code, message: &str) -> MessageResponse {
                MessageResponse::ErrorResponse(ErrorResponse {
                    error_code: code.into(),
                    error_message: message.to_owned(),
                })
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn internal_services_are_not_described() {
        let known = Descriptors::new(SERVICES, pb::v1::FILE_DESCRIPTOR_SET).unwrap();
        for public in
            ["muse.v1.AuthService", "muse.v1.AuthService.Login", "muse.v1.LoginRequest", "muse.v1.Embedding"]
        {
            assert!(known.symbols.contains_key(public), "{public}");
        }
        for internal in [
            "muse.v1.RevocationService",
            "muse.v1.RevocationService.WatchRevocations",
            "muse.v1.WatchRevocationsRequest",
            "muse.v1.WatchRevocationsResponse",
            "muse.v1.Revocation",
            "muse.v1.UserTokens",
        ] {
            assert!(!known.symbols.contains_key(internal), "{internal}");
        }
        for file in known.files.values() {
            let text = String::from_utf8_lossy(file);
            assert!(!text.contains("RevocationService"));
        }
    }

    #[test]
    fn each_described_type_is_in_a_described_file() {
        let known = Descriptors::new(SERVICES, pb::v1alpha::FILE_DESCRIPTOR_SET).unwrap();
        for file in known.files.values() {
            let file = FileDescriptorProto::decode(&file[..]).unwrap();
            let methods = file.service.iter().flat_map(|service| &service.method);
            let types = methods
                .flat_map(|method| [method.input_type().to_owned(), method.output_type().to_owned()])
                .chain(file.message_type.iter().flat_map(types_of))
                .filter(|name| !name.is_empty());
            for name in types {
                assert!(known.symbols.contains_key(name.trim_start_matches('.')), "{name}");
            }
            assert!(
                file.dependency.iter().all(|name| known.files.contains_key(name)),
                "{:?}",
                file.dependency
            );
        }
    }
}
