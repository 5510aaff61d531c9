# The server, the worker, the administrator's commands and commctl in one image:
#
#   docker build -t commissaire:local --build-arg COMMIT=$(git rev-parse --short HEAD) .
#
# It holds two static binaries, a wget and the roots of public CAs, runs as an
# ordinary user and writes nothing.
FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG VERSION=0.1.0-dev
ARG COMMIT=unknown
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X commissaire/internal/version.Version=${VERSION} -X commissaire/internal/version.commit=${COMMIT}" -o /out/ ./cmd/...

FROM scratch
# For health checks; under this name it is wget and nothing else.
COPY --from=busybox:1.37.0-musl /bin/busybox /usr/bin/wget
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /usr/bin/
USER 65532:65532
EXPOSE 8000
ENTRYPOINT ["/usr/bin/commissaire"]
CMD ["server"]
