# syntax=docker/dockerfile:1
# Versions are in full. To pin the base image, add the digest that
# `docker buildx imagetools inspect rust:1.95.0-bookworm` prints: FROM rust:1.95.0-bookworm@sha256:...
FROM rust:1.95.0-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY migrations migrations
COPY src src
# A profile of Cargo.toml: `dev` builds faster than `release`, and runs slower.
ARG PROFILE=release
# The caches remain after the step. The image contains only the files below /image.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo install --locked --profile "$PROFILE" --path . --bin revertd --root /image/usr --no-track
# The libraries that the program links, including the loader, and the system's trusted authorities.
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
# The image has no shell, so the program itself queries /readyz. The check needs telemetry.listen,
# and ends by itself after 4 s.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/bin/revertd", "health"]
ENTRYPOINT ["/usr/bin/revertd"]
CMD ["worker"]
