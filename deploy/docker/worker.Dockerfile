# Agent and executor with libtorch.  docker build -f deploy/docker/worker.Dockerfile .
FROM rust:1.95-bookworm AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgloo-dev make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN make build

FROM debian:bookworm-slim
COPY --from=build /src/target/release/lethe-worker /src/target/release/lethe-executor /opt/lethe/bin/
# The executor's rpath names the venv of the build.
COPY --from=build /src/.venv/lib /src/.venv/lib
COPY --from=build /src/.libtorch /src/.libtorch
USER 65532:65532
ENTRYPOINT ["/opt/lethe/bin/lethe-worker"]
