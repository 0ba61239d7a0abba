# The operator's image: nothing but Python, the locked dependencies and the operator, run by an unprivileged user.
#
#   make image          with whichever of docker, podman and buildah is there
#   docker build -t tuinly-operator:0.1.0 .
#
# podman and buildah build it as well. Behind a TLS proxy, or with a package index of one's own:
#
#   docker build --secret id=ca-bundle,src=ca.pem --secret id=pip.conf,src=pip.conf -t tuinly-operator:0.1.0 .

# To build with: Python 3.11 or later with pip, a shell, glibc, for which the locked packages have wheels.
ARG BUILD_IMAGE=usual-base
# To run on: the same Python at the same path; neither pip nor a shell is needed.
ARG RUNTIME_IMAGE=usual-base

# A stage of its own, as the bot that keeps its version reads no arguments. Nobody pulls it where others are given.
FROM python:3.13-slim AS usual-base

FROM ${BUILD_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /source

# The dependencies by themselves first: this layer stays as long as the lock does. --without-pip keeps the environment to
# what runs; --only-binary, since a source distribution would run code of its own, with dependencies that no lock names.
# The certificates to trust and a pip.conf, which may hold a password, come as secrets of the build: an argument or a copied
# file would stay in the image's history or in a layer. No other step needs the network.
COPY requirements/ requirements/
RUN --mount=type=secret,id=ca-bundle --mount=type=secret,id=pip.conf \
    if [ -f /run/secrets/ca-bundle ]; then export PIP_CERT=/run/secrets/ca-bundle; fi && \
    if [ -f /run/secrets/pip.conf ]; then export PIP_CONFIG_FILE=/run/secrets/pip.conf; fi && \
    python3 -m venv --without-pip /opt/tuinly && \
    python3 -m pip --python /opt/tuinly install --no-compile --require-hashes --only-binary :all: -r requirements/operator.lock && \
    python3 -m venv --without-pip /opt/build && \
    python3 -m pip --python /opt/build install --require-hashes --only-binary :all: -r requirements/build.lock

COPY pyproject.toml README.md ./
COPY operator/ operator/
RUN python3 -m pip --python /opt/build wheel --no-deps --no-build-isolation --wheel-dir /wheels . && \
    python3 -m pip --python /opt/tuinly install --no-compile --no-deps --no-index /wheels/*.whl

# The same commit gives the same bytes: bytecode that names its source by hash and not by time, and one time for all files.
# It is never checked against its source, which nobody can change in a read-only image.
COPY hack/prune.py hack/
ARG SOURCE_DATE_EPOCH=0
RUN python3 hack/prune.py /opt/tuinly && \
    PYTHONHASHSEED=0 /opt/tuinly/bin/python3 -m compileall -qf --invalidation-mode unchecked-hash /opt/tuinly/lib && \
    chmod -R u=rwX,go=rX /opt/tuinly && \
    find /opt/tuinly -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +

FROM ${RUNTIME_IMAGE}
ARG RUNTIME_IMAGE
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="tuinly-operator" \
      org.opencontainers.image.description="Keeps Tuinly access tokens fresh in Kubernetes Secrets" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${RUNTIME_IMAGE}"
COPY --from=builder /opt/tuinly /opt/tuinly
# The root file system is read-only in the cluster, so there is nowhere to put bytecode; it is compiled already.
ENV PATH=/opt/tuinly/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, which Kubernetes can tell from root without a look into the image's /etc/passwd.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["tuinly-operator"]
CMD ["run"]
