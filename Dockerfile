# syntax=docker/dockerfile:1

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# One a line: not every builder takes several.
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=
ARG COMMIT=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/nimble-bridge ./cmd/nimble-bridge \
    && mkdir /out/data

# CA certificates, a user without rights, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
ARG VERSION=
ARG COMMIT=
LABEL org.opencontainers.image.title="nimble-bridge" \
      org.opencontainers.image.description="Publishes the changes of a Nimble CRM account as events on NATS JetStream" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$COMMIT"
COPY --from=build /out/nimble-bridge /usr/local/bin/nimble-bridge
# A fresh volume takes over the owner of what it hides.
COPY --from=build --chown=65532:65532 /out/data /data
USER 65532:65532
WORKDIR /data
VOLUME /data
# Inside a container the loopback interface reaches nobody; what leaves the container is decided by the ports that are published.
ENV HTTP_ADDR=0.0.0.0:8080 EMBEDDED_NATS_ADDR=0.0.0.0:4222 EMBEDDED_NATS_DIR=/data
EXPOSE 8080 4222
STOPSIGNAL SIGTERM
# Whether it is alive, since much that runs containers restarts what is unhealthy, and a refused key is not mended by that.
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s CMD ["/usr/local/bin/nimble-bridge", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/nimble-bridge"]
