# syntax=docker/dockerfile:1

# One image with /operator, /hubnode and /hubctl; a pod says which it runs.
# `make image-archive` makes its like without docker and without a network, to try a
# change: the same programs and user, no base. It has the CA certificates of the machine
# that builds it, if any, and neither time zones, /tmp nor these labels.

# Pinned by tag, which names one Go and one Debian release. A registry that can
# be reached at release time gives the digests to pin beside the tags.
FROM --platform=$BUILDPLATFORM golang:1.26.8-bookworm AS build
WORKDIR /src

# The modules come before the sources: a layer of their own, kept until go.mod changes.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download

COPY . .

ARG VERSION=dev
ARG TARGETOS
ARG TARGETARCH
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=$VERSION" \
    -o /out/ ./cmd/operator ./cmd/hubnode ./cmd/hubctl

FROM gcr.io/distroless/static-debian12:nonroot
LABEL org.opencontainers.image.title="switchboard" \
      org.opencontainers.image.source="https://github.com/switchboardhub/switchboard" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /out/ /
# The number, not the name: runAsNonRoot can check only a number.
USER 65532:65532
