//! onnxruntime in a separate process.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use muse_tests::root;
use serde_json::Value;

/// A running `onnxruntime_peer.py`.
pub(crate) struct Peer {
    process: Child,
    requests: ChildStdin,
    responses: BufReader<ChildStdout>,
    /// The version of onnxruntime.
    pub(crate) version: String,
}

impl Peer {
    /// Starts the process, which loads the model and the sentences.
    pub(crate) fn start(python: &Path, onnx: &Path, sentences: &[String]) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from).to_string();
        let mut process = Command::new(python)
            .arg(root().join("tests/bench/onnxruntime_peer.py"))
            .arg(onnx)
            .arg(threads)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the Python of tests/bench/requirements.txt is there");
        let requests = process.stdin.take().expect("it was asked for");
        let responses = BufReader::new(process.stdout.take().expect("it was asked for"));
        let mut peer = Self { process, requests, responses, version: String::new() };
        let greeting = peer.request(&Value::from(sentences));
        peer.version = greeting["version"].as_str().expect("it reports its version").to_owned();
        peer
    }

    /// Measures sentences per second.
    pub(crate) fn sentences_per_second(&mut self, duration: Duration) -> f64 {
        let answer = self.request(&Value::from(duration.as_secs_f64()));
        answer["sentences_per_second"].as_f64().expect("it responses with a number")
    }

    fn request(&mut self, request_body: &Value) -> Value {
        writeln!(self.requests, "{request_body}").expect("it reads");
        let mut line = String::new();
        self.responses.read_line(&mut line).expect("it responses");
        serde_json::from_str(&line).expect("it responses in JSON")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
