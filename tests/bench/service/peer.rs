//! onnxruntime in a process of its own, which measures when it is told to.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use muse_tests::root;
use serde_json::Value;

/// `onnxruntime_peer.py`, waiting.
pub(crate) struct Peer {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// Its version.
    pub(crate) version: String,
}

impl Peer {
    /// Loads the model and hands over the sentences.
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
        let orders = process.stdin.take().expect("it was asked for");
        let answers = BufReader::new(process.stdout.take().expect("it was asked for"));
        let mut peer = Self { process, orders, answers, version: String::new() };
        let greeting = peer.ask(&Value::from(sentences));
        peer.version = greeting["version"].as_str().expect("it tells its version").to_owned();
        peer
    }

    /// Sentences a second.
    pub(crate) fn sentences_per_second(&mut self, duration: Duration) -> f64 {
        let answer = self.ask(&Value::from(duration.as_secs_f64()));
        answer["sentences_per_second"].as_f64().expect("it answers with a number")
    }

    fn ask(&mut self, order: &Value) -> Value {
        writeln!(self.orders, "{order}").expect("it reads");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("it answers");
        serde_json::from_str(&line).expect("it answers in JSON")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
