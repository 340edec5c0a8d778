# The worker: agent, executor, and libtorch beside them under /opt/lethe. From the root of the repository:
#   docker build -f deploy/docker/worker.Dockerfile -t lethe-worker:0.1.0 .
#   docker build -f deploy/docker/worker.Dockerfile --build-arg FLAVOUR=cuda -t lethe-worker:0.1.0-cuda .
ARG DEBIAN=bookworm
ARG RUST=1.95.0

FROM rust:${RUST}-slim-${DEBIAN} AS build
# hadolint ignore=DL3008 # the Debian release is the pin
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ libgloo-dev make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make .stamps/libtorch && cargo build --release --locked -p lethe-agent -p lethe-executor
# cpu: what libtorch needs without a GPU. cuda: everything it can use, several gigabytes.
ARG FLAVOUR=cpu
RUN if [ "$FLAVOUR" = cuda ]; then .venv/bin/pip install --no-cache-dir "$(grep ^torch== tools/setup/libtorch-cpu.in)"; fi \
    && deploy/docker/collect.sh "$FLAVOUR" target/release .venv/lib/python3*/site-packages /out

FROM debian:${DEBIAN}-slim
LABEL org.opencontainers.image.title="lethe-worker" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /out /opt/lethe
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 7402
ENTRYPOINT ["/opt/lethe/bin/lethe-worker"]
