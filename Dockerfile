# syntax=docker/dockerfile:1

# Larder's images, for those who have docker: `docker build --target agent -t larder-agent .`, and `operator` likewise.
# `cargo xtask image` makes them without docker; docs/images.md has both.

FROM rust:1-bookworm AS builder
WORKDIR /src
COPY . .
# Both caches stay between builds, so the programs are copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --package larder-operator --package larder-agent --package larder-cli \
    && install -D --target-directory=/out \
        target/release/larder-operator target/release/larder-agent target/release/larder

# glibc, libgcc, certificates and accounts (nonroot is 65532), and nothing else.
FROM gcr.io/distroless/cc-debian12 AS base
ARG VERSION=0.1.0
ARG REVISION
LABEL org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=https://github.com/larder-dev/larder \
      org.opencontainers.image.licenses=Apache-2.0
# glibc would keep the buffers of large layers for ever, or ask for each of them anew: docs/BENCHMARKS.md.
ENV MALLOC_TRIM_THRESHOLD_=1048576 MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_ARENA_MAX=1
WORKDIR /

FROM base AS operator
LABEL org.opencontainers.image.title=larder-operator \
      org.opencontainers.image.description="Larder's operator: works out which container images each node is to hold"
COPY --from=builder /out/larder-operator /usr/bin/
USER 65532:65532
ENTRYPOINT ["/usr/bin/larder-operator"]

FROM base AS agent
LABEL org.opencontainers.image.title=larder-agent \
      org.opencontainers.image.description="Larder's agent: keeps a node's container images as they are wanted"
COPY --from=builder /out/larder-agent /usr/bin/
COPY --from=builder /out/larder /usr/bin/
# The runtime's socket is root's. The pod drops all capabilities.
USER 0:0
ENTRYPOINT ["/usr/bin/larder-agent"]
