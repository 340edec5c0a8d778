# The coordinator alone: no libtorch.  docker build -f deploy/docker/coordinator.Dockerfile .
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked -p lethe-coordinator

FROM debian:bookworm-slim
COPY --from=build /src/target/release/lethe-coordinator /usr/local/bin/lethe-coordinator
USER 65532:65532
EXPOSE 7400 7401
ENTRYPOINT ["lethe-coordinator"]
