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
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin revertd
COPY --from=build /usr/local/bin/revertd /usr/local/bin/revertd
COPY LICENSE /usr/share/doc/revertd/LICENSE
USER 10001
# Healthy while connected to the broker, which it is whenever it works: a paused worker closes its connections.
# 1628 is the port 5672 as the kernel writes it, 01 an established connection.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD grep -qsi ':1628 01 ' /proc/net/tcp /proc/net/tcp6
ENTRYPOINT ["revertd"]
CMD ["worker"]
