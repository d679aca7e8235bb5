# syntax=docker/dockerfile:1
FROM rust:1-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY migrations migrations
COPY src src
# The caches outlive the step, the target folder with them, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin revertd && cp target/release/revertd /usr/local/bin/revertd

FROM debian:bookworm-slim
LABEL org.opencontainers.image.title="revertd" \
      org.opencontainers.image.licenses="Apache-2.0"
# The authorities that are trusted where none is named.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin revertd
COPY --from=build /usr/local/bin/revertd /usr/local/bin/revertd
COPY LICENSE /usr/share/doc/revertd/LICENSE
USER 10001
# Healthy while connected to the broker, which it is whenever it works: a paused worker closes its connections.
# 1628 and 1627 are the ports 5672 and 5671 as the kernel writes them, 01 is an established connection.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD grep -qsi ':162[78] 01 ' /proc/net/tcp /proc/net/tcp6
ENTRYPOINT ["revertd"]
CMD ["worker"]
