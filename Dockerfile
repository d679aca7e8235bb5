# syntax=docker/dockerfile:1
# Versions are in full. For a build that can't change under its tag, add the digest that
# `docker buildx imagetools inspect rust:1.95.0-bookworm` prints: FROM rust:1.95.0-bookworm@sha256:...
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY migrations migrations
COPY src src
# A profile of Cargo.toml: `dev` builds in less time than `release` and works more slowly.
ARG PROFILE=release
# The caches outlive the step; what is installed into /image is all that the image has.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo install --locked --profile "$PROFILE" --path . --bin revertd --root /image/usr --no-track
# The libraries that the program links, and the loader among them; the authorities that are trusted where none is named.
RUN ldd /image/usr/bin/revertd | grep -o '/[^ ]*' | xargs -I '{}' cp --parents --dereference '{}' /image \
    && mkdir -p /image/etc/ssl/certs \
    && cp --dereference /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'hosts: files dns' >/image/etc/nsswitch.conf \
    && echo 'revertd:x:10001:10001::/:/nonexistent' >/image/etc/passwd \
    && echo 'revertd:x:10001:' >/image/etc/group
COPY LICENSE /image/usr/share/doc/revertd/LICENSE

FROM scratch
LABEL org.opencontainers.image.title="revertd" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image/ /
USER 10001:10001
# There is no shell: the program asks its own /readyz. It needs telemetry.listen, and ends by itself after 4 s.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/bin/revertd", "health"]
ENTRYPOINT ["/usr/bin/revertd"]
CMD ["worker"]
