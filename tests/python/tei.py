"""Clients of Hugging Face's text-embeddings-inference (LlamaIndex, Chroma, Hugging Face Hub) against a running service."""

import asyncio
import importlib.metadata
import io
import json
import os
import urllib.error
import urllib.request

import numpy as np
import pytest
from chromadb.utils.embedding_functions import HuggingFaceEmbeddingServer
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

# Chroma sends no telemetry.
os.environ["ANONYMIZED_TELEMETRY"] = "False"
GATEWAY, KEY = os.environ["GATEWAY"], os.environ["MUSE_API_KEY"]
SENTENCES = ["Where is the library?", "¿Dónde está la biblioteca?", "Nothing rhymes with orange."]
# Each word is a token, and the words at the ends determine the direction of a truncation.
TOO_LONG = "cat " * 5000 + "dog " * 5000
hub = InferenceClient(f"{GATEWAY}/embed", api_key=KEY)


def post(body, **headers):
    """Return the status and the body of the response to a JSON body."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}
    request = urllib.request.Request(f"{GATEWAY}/embed", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def embed(sentences):
    status, body = post({"sentence": sentences})
    assert status == 200, body
    return np.array(json.loads(body)["embedding"])


def assert_same(found, expected):
    found = np.array(found)
    assert found.shape == expected.shape and np.abs(found - expected).max() < 1e-5


def llama_index(**options):
    return TextEmbeddingsInference(model_name="muse", base_url=GATEWAY, auth_token=KEY, **options)


def test_llamaindex_returns_the_same_vectors():
    client, expected = llama_index(), embed(SENTENCES)
    assert_same(client.get_text_embedding_batch(SENTENCES), expected)
    assert_same([client.get_query_embedding(SENTENCES[0])], expected[:1])
    assert_same(asyncio.run(client.aget_text_embedding_batch(SENTENCES)), expected)


def test_llamaindex_truncates_only_if_configured():
    (truncated,) = llama_index(truncate_text=True).get_text_embedding_batch([TOO_LONG])
    assert len(truncated) == 512
    # The client does not check the status, and does not find vectors in the body.
    with pytest.raises(Exception):  # noqa: B017
        llama_index(truncate_text=False).get_text_embedding(TOO_LONG)


def test_chroma_returns_the_same_vectors(monkeypatch):
    monkeypatch.setenv("MUSE_KEY", KEY)
    function = HuggingFaceEmbeddingServer(url=f"{GATEWAY}/embed", api_key_env_var="MUSE_KEY")
    assert_same(function(SENTENCES), embed(SENTENCES))
    with pytest.raises(Exception):  # noqa: B017
        function([TOO_LONG])


def test_hub_client_returns_the_same_vectors():
    expected = embed(SENTENCES)
    assert_same(hub.feature_extraction(SENTENCES), expected)
    assert_same(hub.feature_extraction(SENTENCES[0]), expected[:1])
    assert_same(hub.feature_extraction(SENTENCES, normalize=True, truncate=False), expected)

    async def call():
        async with AsyncInferenceClient(f"{GATEWAY}/embed", api_key=KEY) as client:
            return await client.feature_extraction(SENTENCES)

    assert_same(asyncio.run(call()), expected)


@pytest.mark.parametrize(
    ("direction", "remaining"),
    [(None, "cat " * 5000 + "dog " * 3190), ("right", "cat " * 5000 + "dog " * 3190), ("left", "cat " * 3190 + "dog " * 5000)],
)
def test_truncation_is_exact_in_tokens(direction, remaining):
    # 8,192 tokens, of which two are added by the model.
    options = {"truncation_direction": direction} if direction else {}
    found = hub.feature_extraction([TOO_LONG, "Hi"], truncate=True, **options)
    assert_same(found, embed([remaining, "Hi"]))


def test_text_that_fits_is_not_truncated():
    for direction in ("left", "right"):
        found = hub.feature_extraction(SENTENCES, truncate=True, truncation_direction=direction)
        assert_same(found, embed(SENTENCES))


def test_dimensions_are_scaled_unless_normalize_is_false():
    whole = embed(SENTENCES)
    cut = whole[:, :64]
    assert_same(hub.feature_extraction(SENTENCES, dimensions=64), cut / np.linalg.norm(cut, axis=1, keepdims=True))
    assert_same(hub.feature_extraction(SENTENCES, dimensions=64, normalize=False), cut)
    assert_same(hub.feature_extraction(SENTENCES, normalize=False), whole)


def test_hub_client_shows_the_error_of_the_service():
    for arguments, text in [
        ({"text": TOO_LONG}, "inputs: more than 8192 tokens; the limit is 8192 a sentence; split the text, or send `truncate`: true"),
        ({"text": ["Hi", TOO_LONG]}, "inputs[1]: more than 8192 tokens"),
        ({"text": ["Hi", ""]}, "inputs[1]: the text is empty"),
        ({"text": "Hi", "prompt_name": "query"}, "prompt_name: 'query': the model has no prompts"),
        ({"text": "Hi", "dimensions": 1536}, "dimensions: 1536; vectors have 512 components: leave `dimensions` out"),
    ]:
        with pytest.raises(HfHubHTTPError) as raised:
            hub.feature_extraction(**arguments)
        assert text in str(raised.value)
    stranger = InferenceClient(f"{GATEWAY}/embed", api_key=KEY[:-1])
    with pytest.raises(HfHubHTTPError) as raised:
        stranger.feature_extraction("Hi")
    assert raised.value.response.status_code == 401


def test_responses_have_the_requested_format():
    status, body = post({"inputs": SENTENCES}, Accept="application/octet-stream")
    assert status == 200 and body.startswith(b"\x93NUMPY") and b"(3, 512)" in body[:128]
    status, body = post({"inputs": "Hi", "dimensions": 3, "normalize": False, "format": "npy"})
    assert status == 200 and b"(1, 3)" in body[:128]
    whole = np.load(io.BytesIO(post({"inputs": SENTENCES, "format": "npy"})[1]))
    for name, dtype in ("float16", np.float16), ("int8", np.int8):
        for options in {}, {"dimensions": 100}, {"dimensions": 100, "normalize": False}:
            status, body = post({"inputs": SENTENCES, "format": name, **options})
            vectors = np.load(io.BytesIO(body))
            columns = options.get("dimensions", 512)
            assert (status, vectors.dtype, vectors.shape) == (200, dtype, (3, columns))
            rows = vectors.astype(np.float64)
            cosines = (rows * whole[:, :columns]).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(whole[:, :columns], axis=1)
            assert cosines.min() > 0.9998
    status, body = post({"inputs": "Hi"}, **{"Grpc-Timeout": "1n"})
    assert status == 504 and json.loads(body)["error"] == json.loads(body)["message"]


if __name__ == "__main__":
    for package in ("llama-index-embeddings-text-embeddings-inference", "chromadb", "huggingface-hub"):
        print(package, importlib.metadata.version(package))
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "--color=no", __file__]))
