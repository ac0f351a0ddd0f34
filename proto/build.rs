//! Compiles the `.proto` files with protox, so that no `protoc` is needed.

use std::{collections::BTreeSet, env, error::Error, fs, path::PathBuf};

use prost::Message;

const FILES: [&str; 5] = [
    "muse/v1/auth.proto",
    "muse/v1/embedder.proto",
    "muse/v1/key.proto",
    "muse/v1/usage.proto",
    "muse/v1/user.proto",
];
/// Messages with limits in src/limits.rs.
const LIMITED: [&str; 3] = ["EmbedRequest", "EmbedStreamRequest", "TokenizeRequest"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("muse_descriptor.bin"), descriptors.encode_to_vec())?;
    let mut methods = Vec::new();
    // Messages without limits on their fields.
    let mut unlimited = BTreeSet::new();
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                unlimited.extend([method.input_type(), method.output_type()].map(str::to_owned));
                methods.push(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
            }
        }
    }
    fs::write(out.join("methods.rs"), format!("&{methods:?}"))?;
    let unlimited: String = unlimited
        .iter()
        .filter_map(|message| message.strip_prefix(".muse.v1."))
        .filter(|message| !LIMITED.contains(message))
        .map(|message| format!("impl Limited for crate::v1::{message} {{}}\n"))
        .collect();
    fs::write(out.join("unlimited.rs"), unlimited)?;
    tonic_prost_build::configure()
        .extern_path(".muse.v1.Embedding", "crate::embedding::Embedding")
        .extern_path(".muse.v1.TokenizeResponse", "crate::tokenized::TokenizeResponse")
        .codec_path("crate::codec::Codec")
        .compile_fds(descriptors)?;
    Ok(())
}
