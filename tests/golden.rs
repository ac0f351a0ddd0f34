//! Golden tokens and vectors through the gateway, in all languages and for the hard classes.

use std::collections::HashSet;

use half::f16;
use muse_model::precision::Precision;
use muse_models::verify::cosine;
use muse_proto::v1::{EmbedRequest, Embedding, GetModelRequest, TokenizeRequest, VectorFormat};
use muse_tests::{
    Stack, auth_config, bearing, golden_sentences, largest_difference, model_dir, start_auth, start_embedder,
    start_gateway,
};

#[tokio::test(flavor = "multi_thread")]
async fn tokens_equal_those_of_sentencepiece() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let golden = golden_sentences();
    let languages: HashSet<&str> =
        golden.iter().map(|line| line.kind.as_str()).filter(|kind| !kind.starts_with("hard:")).collect();
    assert_eq!(languages.len(), 16);

    let sentences = golden.iter().map(|line| line.text.clone()).collect();
    let request = bearing(&token, TokenizeRequest { sentences });
    let answer = stack.embedder_client().tokenize(request).await.unwrap().into_inner().sentences;
    assert_eq!(answer.len(), golden.len());
    for (got, line) in answer.iter().zip(&golden) {
        assert_eq!(got.tokens, line.tokens, "{}: {:?}", line.kind, line.text);
        assert_eq!(got.ids, line.ids[1..line.ids.len() - 1], "{}: {:?}", line.kind, line.text);

        // Offsets are ordered, inside the text, on character boundaries, and equal in both units.
        assert_eq!((got.bytes.len(), got.chars.len()), (got.ids.len(), got.ids.len()));
        let mut last_start = 0;
        for (bytes, chars) in got.bytes.iter().zip(&got.chars) {
            let (start, end) = (bytes.start as usize, bytes.end as usize);
            assert!(last_start <= start && start <= end, "{:?}", line.text);
            assert_eq!(line.text[..start].chars().count(), chars.start as usize);
            assert_eq!(line.text[..end].chars().count(), chars.end as usize);
            last_start = start;
        }
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn vectors_equal_the_reference_alone_and_in_a_batch() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let golden = golden_sentences();
    let all: Vec<String> = golden.iter().map(|line| line.text.clone()).collect();

    let request = bearing(&token, EmbedRequest { sentences: all.clone(), ..EmbedRequest::default() });
    let together = client.embed(request).await.unwrap().into_inner().embeddings;
    assert_eq!(together.len(), golden.len());
    for (got, line) in together.iter().zip(&golden) {
        let agreement = cosine(&got.to_vec(), &line.vector);
        assert!(agreement >= 0.999_999, "{}: {:?}: {agreement}", line.kind, line.text);
        let norm: f64 = got.components().map(|v| f64::from(v).powi(2)).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
    for (index, sentence) in all.iter().enumerate().step_by(7) {
        let request =
            bearing(&token, EmbedRequest { sentences: vec![sentence.clone()], ..EmbedRequest::default() });
        let alone = client.embed(request).await.unwrap().into_inner().embeddings;
        let difference = largest_difference(&alone[0].to_vec(), &together[index].to_vec());
        assert!(difference <= 1e-5, "{sentence:?}: {difference}");
    }
    stack.stop().await;
}

/// For each vector the other ones by descending cosine, the first `count`.
fn neighbours(vectors: &[Vec<f32>], count: usize) -> Vec<Vec<usize>> {
    let nearest = |query: usize| {
        let mut others: Vec<(f64, usize)> = (0..vectors.len())
            .filter(|&other| other != query)
            .map(|other| (cosine(&vectors[query], &vectors[other]), other))
            .collect();
        others.sort_by(|a, b| b.0.total_cmp(&a.0));
        others.truncate(count);
        others.into_iter().map(|(_, other)| other).collect()
    };
    (0..vectors.len()).map(nearest).collect()
}

fn numbers(format: VectorFormat, embedding: &Embedding) -> Vec<f32> {
    let bytes = &embedding.encoded;
    match format {
        VectorFormat::Unspecified => embedding.to_vec(),
        VectorFormat::Float16 => {
            bytes.chunks_exact(2).map(|half| f16::from_le_bytes([half[0], half[1]]).to_f32()).collect()
        }
        VectorFormat::Int8 => bytes.iter().map(|&byte| f32::from(byte.cast_signed())).collect(),
    }
}

/// The figures of docs/model/precision.md, "Formats of responses".
#[tokio::test(flavor = "multi_thread")]
async fn formats_find_the_same_neighbours() {
    const COUNT: usize = 10;
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let golden = golden_sentences().into_iter().filter(|line| !line.kind.starts_with("hard:"));
    let sentences: Vec<String> = golden.map(|line| line.text).collect();
    let mut client = stack.embedder_client();
    let mut embed = async |format: VectorFormat| -> Vec<Vec<f32>> {
        let request =
            EmbedRequest { sentences: sentences.clone(), format: format.into(), ..EmbedRequest::default() };
        let embeddings = client.embed(bearing(&token, request)).await.unwrap().into_inner().embeddings;
        embeddings.iter().map(|embedding| numbers(format, embedding)).collect()
    };
    let exact = embed(VectorFormat::Unspecified).await;
    let expected = neighbours(&exact, COUNT);
    for (format, least) in [(VectorFormat::Float16, 0.998), (VectorFormat::Int8, 0.98)] {
        let vectors = embed(format).await;
        let worst = exact.iter().zip(&vectors).map(|(a, b)| cosine(a, b)).fold(1.0, f64::min);
        let found = neighbours(&vectors, COUNT);
        let pairs = || expected.iter().zip(&found);
        let first = pairs().filter(|(expected, found)| expected[0] == found[0]).count();
        let shared = pairs()
            .map(|(expected, found)| found.iter().filter(|other| expected.contains(other)).count())
            .sum::<usize>();
        let [first, shared] =
            [first as f64 / found.len() as f64, shared as f64 / (found.len() * COUNT) as f64];
        println!("{format:?}: worst cosine {worst:.6}, nearest {first:.4}, of the nearest ten {shared:.4}");
        assert!(first >= least && shared >= least, "{format:?}: {first}, {shared}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn get_model_describes_the_model() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let model =
        stack.embedder_client().get_model(bearing(&token, GetModelRequest {})).await.unwrap().into_inner();
    assert_eq!(model.name, "universal-sentence-encoder-multilingual");
    assert_eq!((model.version.as_str(), model.dimension), ("3", 512));
    assert_eq!(model.languages.len(), 16);
    assert_eq!((model.precision.as_str(), model.device.as_str()), ("f32", "cpu"));
    assert_eq!(model.source_precision, "int8");
    assert_eq!(model.source_sha256, "b8b05b01f0861094f0475cb288ad1b303ae8aee2ebe96e650d210805d5ca70f7");
    assert_eq!(model.license, "Apache-2.0");
    assert_eq!(model.limits.unwrap().max_sentences, 4_096);
    assert!(["AVX-512", "AVX2", "libtorch"].contains(&model.kernel.as_str()), "{}", model.kernel);
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_selects_a_precision_of_the_documented_quality() {
    let data = tempfile::tempdir().unwrap();
    let auth = start_auth(auth_config(data.path())).await;
    let embedder = start_embedder(&model_dir(), auth.address, &["--precision", "auto"]).await;
    let gateway = start_gateway(auth.address, embedder.address, &[]).await;
    let stack = Stack { data, auth, embedder, gateway };
    stack.wait_until_ready().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let model = client.get_model(bearing(&token, GetModelRequest {})).await.unwrap().into_inner();
    let precision: Precision = model.precision.parse().unwrap();
    assert_ne!(precision, Precision::F16);
    assert!(model.fingerprint.starts_with(&format!("{precision}-")), "{}", model.fingerprint);

    let golden = golden_sentences();
    let sentences = golden.iter().map(|line| line.text.clone()).collect();
    let request = bearing(&token, EmbedRequest { sentences, ..EmbedRequest::default() });
    let found = client.embed(request).await.unwrap().into_inner().embeddings;
    let cosines: Vec<f64> =
        found.iter().zip(&golden).map(|(got, line)| cosine(&got.to_vec(), &line.vector)).collect();
    let worst = cosines.iter().copied().fold(1.0, f64::min);
    let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
    assert!(worst >= 0.9996 && mean >= 0.99995, "{precision}: {worst}, {mean}");
    stack.stop().await;
}
