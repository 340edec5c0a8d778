# The coordinator: one binary, no libtorch. From the root of the repository:
#   docker build -f deploy/docker/coordinator.Dockerfile -t lethe-coordinator:0.1.0 .
ARG DEBIAN=bookworm
ARG RUST=1.95.0

FROM rust:${RUST}-slim-${DEBIAN} AS build
# hadolint ignore=DL3008 # the Debian release is the pin
RUN apt-get update \
    && apt-get install -y --no-install-recommends libprotobuf-dev protobuf-compiler \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p lethe-coordinator

FROM debian:${DEBIAN}-slim
LABEL org.opencontainers.image.title="lethe-coordinator" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /src/target/release/lethe-coordinator /opt/lethe/bin/lethe-coordinator
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 7400 7401
ENTRYPOINT ["/opt/lethe/bin/lethe-coordinator"]
