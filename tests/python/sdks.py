"""OpenAI's SDK (blocking and async), LangChain and LlamaIndex against a running service.

The only settings are OPENAI_BASE_URL and OPENAI_API_KEY, which all of them read.
"""

import asyncio
import base64
import importlib.metadata
import math
import os
import struct
import time

import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from llama_index.embeddings.openai import OpenAIEmbedding

MODEL = "universal-sentence-encoder-multilingual"
SENTENCES = ["Where is the library?", "¿Dónde está la biblioteca?", "Nothing rhymes with orange."]
# A sentence and its token ids, from Tokenize.
SENTENCE, IDS = os.environ["SENTENCE"], [int(id) for id in os.environ["SENTENCE_IDS"].split(",")]

client = openai.OpenAI()


def embed(input, **options):
    return client.embeddings.create(input=input, model=MODEL, **options)


def vectors(response):
    assert [item.index for item in response.data] == list(range(len(response.data)))
    return [item.embedding for item in response.data]


def cosine(a, b):
    return sum(x * y for x, y in zip(a, b)) / math.hypot(*a) / math.hypot(*b)


def test_string_has_a_vector():
    response = embed("Hi")
    (vector,) = vectors(response)
    assert (response.object, response.model, response.data[0].object) == ("list", MODEL, "embedding")
    assert len(vector) == 512 and abs(math.hypot(*vector) - 1) < 1e-6
    assert abs(vector[0] - 0.11707959) < 2e-6
    assert (response.usage.prompt_tokens, response.usage.total_tokens) == (1, 1)


def test_strings_have_vectors_in_their_order():
    together = vectors(embed(SENTENCES))
    for sentence, vector in zip(SENTENCES, together):
        assert cosine(vectors(embed(sentence))[0], vector) > 1 - 1e-6
    english, spanish, other = together
    assert cosine(english, spanish) > 0.7 > cosine(english, other) + 0.3


def test_empty_string_has_a_vector():
    response = embed(["", "Hi"])
    assert [len(vector) for vector in vectors(response)] == [512, 512]
    assert response.usage.total_tokens == 1


def test_2048_strings_have_vectors():
    assert len(vectors(embed([f"sentence {n}" for n in range(2048)]))) == 2048


def test_token_ids_have_the_vector_of_their_text():
    (expected,) = vectors(embed(SENTENCE))
    for input in (IDS, [IDS], [IDS, IDS]):
        response = embed(input)
        assert response.usage.prompt_tokens == len(IDS) * len(response.data)
        for vector in vectors(response):
            assert cosine(vector, expected) > 1 - 1e-6


def test_encoding_formats_contain_the_same_numbers():
    # By default the SDK requests base64 and decodes it.
    by_default, floats = vectors(embed(SENTENCES)), vectors(embed(SENTENCES, encoding_format="float"))
    text = embed(SENTENCES, encoding_format="base64").data[1].embedding
    assert isinstance(text, str)
    for decoded in (by_default[1], struct.unpack("<512f", base64.b64decode(text, validate=True))):
        assert max(abs(a - b) for a, b in zip(decoded, floats[1])) < 1e-6


@pytest.mark.parametrize("encoding", ["float", "base64", openai.omit])
@pytest.mark.parametrize("dimensions", [1, 256, 512])
def test_dimensions_truncate_and_scale_the_vector(dimensions, encoding):
    (whole,) = vectors(embed(SENTENCE))
    (vector,) = vectors(embed(SENTENCE, dimensions=dimensions, encoding_format=encoding))
    if encoding == "base64":
        vector = struct.unpack(f"<{dimensions}f", base64.b64decode(vector))
    first = whole[:dimensions]
    norm = math.hypot(*first)
    assert len(vector) == dimensions
    assert max(abs(a - b / norm) for a, b in zip(vector, first)) < 1e-6


def test_openai_model_names_are_aliases():
    for name in ("text-embedding-3-small", "text-embedding-3-large", "text-embedding-ada-002"):
        response = client.embeddings.create(input="Hi", model=name, user="someone")
        assert response.model == MODEL
        assert client.models.retrieve(name).id == MODEL
        # Token ids of OpenAI's vocabulary would have meaningless vectors.
        with pytest.raises(openai.BadRequestError) as raised:
            client.embeddings.create(input=IDS, model=name)
        assert raised.value.param == "input" and MODEL in raised.value.message


def test_exhausted_quota_is_not_retried():
    limited = openai.OpenAI(api_key=os.environ["QUOTA_KEY"])

    def create():
        return limited.embeddings.with_raw_response.create(input=SENTENCE, model=MODEL)

    headers = create().headers
    assert headers["x-ratelimit-limit-tokens"] == "5" and headers["x-ratelimit-reset-tokens"].endswith("s")
    end = time.monotonic() + 30
    with pytest.raises(openai.RateLimitError) as raised:
        while time.monotonic() < end:
            time.sleep(0.1)
            began = time.monotonic()
            create()
    assert time.monotonic() - began < 0.3, "the SDK waits before a retry"
    assert (raised.value.type, raised.value.code) == ("insufficient_quota", "insufficient_quota")
    assert "The quota of the API key, 5 tokens, is exhausted until" in raised.value.message
    assert raised.value.response.headers["x-ratelimit-remaining-tokens"] == "0"


def test_models_lists_one_model():
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == (MODEL, "model", "muse-as-service")
    assert client.models.retrieve(MODEL) == model


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": ["a", 5]}, "input[1]"),
        ({"input": [[6, 7], [10_000_000]]}, "input[1][0]"),
        ({"input": [6, 10_000_000]}, "input[1]"),
        ({"input": "a", "dimensions": 0}, "dimensions"),
        ({"input": "a", "dimensions": 513}, "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format"),
        ({"input": "a", "model": 5}, "model"),
    ],
)
def test_invalid_argument_is_named_in_the_error(arguments, param):
    with pytest.raises(openai.BadRequestError) as raised:
        client.embeddings.create(**{"model": MODEL, "encoding_format": "float", **arguments})
    error = raised.value
    assert (error.param, error.type, error.code) == (param, "invalid_request_error", None)
    assert param in error.message


@pytest.mark.parametrize(
    ("input", "param", "text"),
    [
        (["a"] * 4097, "input", "the limit is 4096"),
        (["a", "x" * 262_145], "input[1]", "the limit is 262144"),
        ("hello world " * 9000, "input", "the limit is 8192"),
    ],
)
def test_too_large_input_is_rejected_with_the_limit(input, param, text):
    with pytest.raises(openai.APIStatusError) as raised:
        embed(input)
    error = raised.value
    assert (error.status_code, error.param, error.type) == (413, param, "invalid_request_error")
    assert text in error.message and "sentences" not in error.message.split(":")[0]


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (
            {"model": "text-embedding-3-small", "dimensions": 1536},
            "leave `dimensions` out, or configure at most 512, and an index of that size",
        ),
        (
            {"model": "text-embedding-3-large", "dimensions": 3072},
            "leave `dimensions` out, or configure at most 512, and an index of that size",
        ),
        ({"model": "bge-m3"}, f"configure {MODEL}, or one of its aliases: text-embedding-3-small, text-embedding-3-large"),
        (
            {"model": "text-embedding-3-large", "input": IDS},
            f"name {MODEL} as the model, or send text (LangChain: check_embedding_ctx_length",
        ),
    ],
)
def test_error_of_a_default_setting_names_the_remedy(arguments, remedy):
    with pytest.raises(openai.APIStatusError) as raised:
        client.embeddings.create(**{"input": "a", **arguments})
    assert remedy in raised.value.message


def test_large_model_without_dimensions_is_an_alias():
    assert len(vectors(client.embeddings.create(input="Hi", model="text-embedding-3-large"))[0]) == 512


def test_unknown_model_is_not_found():
    for call in (lambda: client.embeddings.create(input="a", model="gpt-5"), lambda: client.models.retrieve("gpt-5")):
        with pytest.raises(openai.NotFoundError) as raised:
            call()
        assert (raised.value.code, raised.value.param) == ("model_not_found", "model")


def test_unknown_routes_return_openai_errors():
    with pytest.raises(openai.NotFoundError) as raised:
        client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}])
    assert raised.value.type == "invalid_request_error" and "/v1/chat/completions" in raised.value.message
    with pytest.raises(openai.APIStatusError) as raised:
        client.delete("/models", cast_to=object)
    assert (raised.value.status_code, raised.value.code) == (405, "method_not_allowed")
    assert raised.value.response.headers["allow"] == "GET, HEAD, OPTIONS"


@pytest.mark.parametrize("key", ["sk-nothing", client.api_key[:-4] + "AAAA", os.environ["REFRESH_TOKEN"]])
def test_invalid_key_is_an_authentication_error(key):
    stranger = client.with_options(api_key=key)
    for call in (lambda: stranger.embeddings.create(input="a", model=MODEL), stranger.models.list):
        with pytest.raises(openai.AuthenticationError) as raised:
            call()
        assert raised.value.code == "invalid_api_key"


def test_async_client_returns_the_same_vectors():
    async def call():
        async with openai.AsyncOpenAI() as client:
            responses = await asyncio.gather(*(client.embeddings.create(input=sentence, model=MODEL) for sentence in SENTENCES))
            with pytest.raises(openai.NotFoundError):
                await client.models.retrieve("gpt-5")
            return [model async for model in client.models.list()], responses

    models, responses = asyncio.run(call())
    assert [model.id for model in models] == [MODEL]
    for response, vector in zip(responses, vectors(embed(SENTENCES))):
        assert cosine(response.data[0].embedding, vector) > 1 - 1e-6


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(cosine(a, b) > 1 - 1e-6 for a, b in zip(found, expected))


def test_langchain_returns_the_same_vectors():
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False)
    expected = vectors(embed(SENTENCES))
    assert_same(embeddings.embed_documents(SENTENCES), expected)
    assert_same([embeddings.embed_query(SENTENCES[0])], expected[:1])
    assert_same(asyncio.run(embeddings.aembed_documents(SENTENCES)), expected)
    small = OpenAIEmbeddings(model=MODEL, dimensions=64, check_embedding_ctx_length=False)
    assert len(small.embed_query("Hi")) == 64


def test_llamaindex_returns_the_same_vectors():
    address = {"api_base": os.environ["OPENAI_BASE_URL"]}
    embeddings = OpenAIEmbedding(**address)
    expected = vectors(embed(SENTENCES))
    assert_same(embeddings.get_text_embedding_batch(SENTENCES), expected)
    assert_same([embeddings.get_query_embedding(SENTENCES[0])], expected[:1])
    assert_same(asyncio.run(embeddings.aget_text_embedding_batch(SENTENCES)), expected)
    assert len(OpenAIEmbedding(model_name=MODEL, dimensions=64, **address).get_text_embedding("Hi")) == 64


if __name__ == "__main__":
    for package in ("openai", "langchain-openai", "llama-index-embeddings-openai"):
        print(package, importlib.metadata.version(package))
    raise SystemExit(pytest.main(["-q", "-p", "no:cacheprovider", "--color=no", __file__]))
