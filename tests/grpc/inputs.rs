//! Options of Embed: token ids instead of sentences, truncated vectors, formats of vectors.

use half::f16;
use muse_models::verify::cosine;
use muse_proto::{
    Error, Reason,
    v1::{EmbedRequest, TokenIds, TokenizeRequest, Truncation, VectorFormat},
};
use muse_tests::{Stack, bearing, golden_sentences, largest_difference};
use tonic::Code;

fn of_ids(ids: Vec<Vec<u32>>) -> EmbedRequest {
    let token_ids = ids.into_iter().map(|ids| TokenIds { ids }).collect();
    EmbedRequest { token_ids, ..EmbedRequest::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn token_ids_have_the_vectors_of_their_sentences() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let mut sentences: Vec<String> =
        golden_sentences().into_iter().take(300).map(|golden| golden.text).collect();
    sentences.extend(["", "<unk> <s> </s>", "\u{10ffff}\u{10fffe} x"].map(str::to_owned));
    let tokenized =
        client.tokenize(bearing(&token, TokenizeRequest { sentences: sentences.clone() })).await.unwrap();
    let ids: Vec<Vec<u32>> =
        tokenized.into_inner().sentences.into_iter().map(|sentence| sentence.ids).collect();
    let counts: Vec<u32> = ids.iter().map(|ids| ids.len() as u32).collect();

    let request = EmbedRequest { sentences, ..EmbedRequest::default() };
    let by_text = client.embed(bearing(&token, request)).await.unwrap().into_inner().embeddings;
    let by_ids = client.embed(bearing(&token, of_ids(ids))).await.unwrap().into_inner().embeddings;
    assert_eq!(by_text.iter().map(|vector| vector.token_count).collect::<Vec<_>>(), counts);
    assert_eq!(by_ids.iter().map(|vector| vector.token_count).collect::<Vec<_>>(), counts);
    for (text, ids) in by_text.iter().zip(&by_ids) {
        assert!(largest_difference(&text.to_vec(), &ids.to_vec()) <= 1e-6);
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dimensions_truncate_vectors_and_scale_them_to_norm_one() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let mut embed = async |dimensions| {
        let request = EmbedRequest {
            sentences: vec!["Where is it?".to_owned()],
            dimensions,
            ..EmbedRequest::default()
        };
        client
            .embed(bearing(&token, request))
            .await
            .map(|answer| answer.into_inner().embeddings.remove(0).to_vec())
    };
    let whole = embed(0).await.unwrap();
    assert_eq!(whole.len(), 512);
    assert_eq!(embed(512).await.unwrap(), whole);
    for dimensions in [1, 64, 511] {
        let short = embed(dimensions).await.unwrap();
        assert_eq!(short.len(), dimensions as usize);
        let norm = |vector: &[f32]| vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        assert!((norm(&short) - 1.0).abs() < 1e-6, "{}", norm(&short));
        let truncated_norm = norm(&whole[..short.len()]);
        for (x, y) in short.iter().zip(&whole) {
            assert!((f64::from(*x) - f64::from(*y) / truncated_norm).abs() < 1e-6);
        }
    }
    let rejected = Error::from(&embed(513).await.unwrap_err());
    assert_eq!((rejected.reason(), rejected.field()), (Reason::InvalidArgument, Some("dimensions")));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn formats_have_the_same_vectors_in_fewer_bytes() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let sentences: Vec<String> = golden_sentences().into_iter().take(64).map(|golden| golden.text).collect();
    let mut embed = async |format: i32, dimensions| {
        let request =
            EmbedRequest { sentences: sentences.clone(), format, dimensions, ..EmbedRequest::default() };
        client.embed(bearing(&token, request)).await.map(|answer| answer.into_inner().embeddings)
    };
    for dimensions in [512, 100] {
        let whole = embed(0, dimensions).await.unwrap();
        let float16 = embed(VectorFormat::Float16.into(), dimensions).await.unwrap();
        let int8 = embed(VectorFormat::Int8.into(), dimensions).await.unwrap();
        for ((whole, float16), int8) in whole.iter().zip(&float16).zip(&int8) {
            let expected: Vec<u8> =
                whole.components().flat_map(|component| f16::from_f32(component).to_le_bytes()).collect();
            assert_eq!(float16.encoded, expected);
            assert!(float16.packed.is_empty() && int8.packed.is_empty() && whole.encoded.is_empty());
            assert_eq!([float16.token_count, int8.token_count], [whole.token_count; 2]);
            let integers: Vec<f32> = int8.encoded.iter().map(|&byte| f32::from(byte.cast_signed())).collect();
            assert_eq!(integers.len(), dimensions as usize);
            assert_eq!(integers.iter().map(|integer| integer.abs()).fold(0.0, f32::max), 127.0);
            assert!(cosine(&integers, &whole.to_vec()) > 0.9998);
        }
    }
    let rejected = Error::from(&embed(3, 0).await.unwrap_err());
    assert_eq!((rejected.reason(), rejected.field()), (Reason::InvalidArgument, Some("format")));
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn truncation_keeps_the_tokens_that_fit() {
    const MOST: usize = 8_192 - 2;
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    // Sections without spaces, too: the tokens of a sentence do not depend on where it is
    // truncated.
    let long = "Der Zug hat Verspätung, 東京都に住んでいます。 ".repeat(900) + &"これは文です。".repeat(400);
    let call = TokenizeRequest { sentences: vec![long.clone()] };
    let ids = client.tokenize(bearing(&token, call)).await.unwrap().into_inner().sentences.remove(0).ids;
    assert!(ids.len() > MOST + 1_000, "{}", ids.len());

    let request = |sentences: &[&str], truncation: Truncation| EmbedRequest {
        sentences: sentences.iter().map(|&sentence| sentence.to_owned()).collect(),
        truncation: truncation.into(),
        ..EmbedRequest::default()
    };
    for (truncation, remaining) in
        [(Truncation::Right, &ids[..MOST]), (Truncation::Left, &ids[ids.len() - MOST..])]
    {
        let call = bearing(&token, request(&["Hi", &long, ""], truncation));
        let truncated = client.embed(call).await.unwrap().into_inner().embeddings;
        let counts: Vec<u32> = truncated.iter().map(|vector| vector.token_count).collect();
        assert_eq!(counts, [1, MOST as u32, 0]);
        let expected = client.embed(bearing(&token, of_ids(vec![remaining.to_vec()]))).await.unwrap();
        let expected = expected.into_inner().embeddings.remove(0).to_vec();
        assert!(largest_difference(&truncated[1].to_vec(), &expected) <= 1e-6, "{truncation:?}");
    }

    let cases = [
        (request(&["a", &long], Truncation::Unspecified), "sentences[1]", "the limit is 8192 a sentence"),
        // The limit on the tokens of a request applies to the truncated sentences.
        (request(&[&*long; 33], Truncation::Left), "sentences", "the limit is 262144 a request"),
        (EmbedRequest { truncation: 3, ..request(&["a"], Truncation::Right) }, "truncation", "3 is not"),
        (
            EmbedRequest { truncation: 1, ..of_ids(vec![vec![500]]) },
            "truncation",
            "only sentences are truncated",
        ),
    ];
    for (request, field, text) in cases {
        let rejected = Error::from(&client.embed(bearing(&token, request)).await.unwrap_err());
        assert_eq!(rejected.field(), Some(field), "{rejected}");
        assert!(rejected.message().contains(text), "{rejected}");
    }
    stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_token_id_is_rejected_with_its_field() {
    let stack = Stack::start().await;
    let token = stack.login().await.access_token;
    let mut client = stack.embedder_client();
    let word = vec![500; 9_000];
    let cases = [
        (
            of_ids(vec![vec![500], vec![500, 128_000]]),
            "token_ids[1].ids[1]",
            "128000 is not in the vocabulary",
        ),
        (of_ids(vec![vec![u32::MAX]]), "token_ids[0].ids[0]", "4294967295 is not in the vocabulary"),
        (of_ids(vec![vec![1, 500, 2]]), "token_ids[0].ids[0]", "1 (<s>) does not occur in a sentence"),
        (of_ids(vec![vec![500, 2]]), "token_ids[0].ids[1]", "2 (</s>) does not occur in a sentence"),
        (
            EmbedRequest { sentences: vec!["a".to_owned()], ..of_ids(vec![vec![500]]) },
            "token_ids",
            "not both",
        ),
        (EmbedRequest::default(), "sentences", "at least one sentence"),
        (of_ids(vec![vec![]; 4_097]), "token_ids", "4097 sentences; the limit is 4096"),
        (of_ids(vec![vec![], word]), "token_ids[1]", "9002 tokens; the limit is 8192"),
    ];
    for (request, field, text) in cases {
        let rejected = client.embed(bearing(&token, request)).await.unwrap_err();
        assert_eq!(rejected.code(), Code::InvalidArgument);
        let error = Error::from(&rejected);
        assert_eq!(error.field(), Some(field), "{rejected}");
        assert!(error.message().starts_with(&format!("{field}: ")), "{rejected}");
        assert!(error.message().contains(text), "{rejected}");
    }
    // An empty sentence and the unknown token have vectors.
    let odd = client.embed(bearing(&token, of_ids(vec![vec![], vec![0]]))).await.unwrap();
    assert_eq!(odd.into_inner().embeddings.len(), 2);
    stack.stop().await;
}
