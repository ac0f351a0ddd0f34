//! Compiles the gateway again when a file is added to the web page.

fn main() {
    println!("cargo:rerun-if-changed=web");
}
