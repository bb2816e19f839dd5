# syntax=docker/dockerfile:1

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS TARGETARCH VERSION= COMMIT=
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath \
    -ldflags "-s -w -X main.version=$VERSION -X main.commit=$COMMIT" -o /out/nimble-bridge ./cmd/nimble-bridge \
    && mkdir /out/data

# CA certificates, a user without rights, and nothing else.
FROM gcr.io/distroless/static-debian12:nonroot
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
ENTRYPOINT ["/usr/local/bin/nimble-bridge"]
