# The operator's image: nothing but Python, the locked dependencies and the operator, run by an unprivileged user.
#
#   docker build -t tuinly-operator:0.1.0 .
#
# podman and buildah build it as well. Behind a TLS proxy, or with a package index of one's own:
#
#   docker build --secret id=ca-bundle,src=ca.pem --secret id=pip.conf,src=pip.conf -t tuinly-operator:0.1.0 .

# Any image with Python 3.11 or later and pip, on Linux with glibc, for which the locked packages have wheels.
ARG PYTHON_IMAGE=python:3.13-slim

FROM ${PYTHON_IMAGE} AS builder
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
    python -m venv --without-pip /opt/tuinly && \
    pip --python /opt/tuinly install --require-hashes --only-binary :all: -r requirements/operator.lock && \
    python -m venv --without-pip /opt/build && \
    pip --python /opt/build install --require-hashes --only-binary :all: -r requirements/build.lock

COPY pyproject.toml README.md ./
COPY operator/ operator/
RUN pip --python /opt/build wheel --no-deps --no-build-isolation --wheel-dir /wheels . && \
    pip --python /opt/tuinly install --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="tuinly-operator" \
      org.opencontainers.image.description="Keeps Tuinly access tokens fresh in Kubernetes Secrets"
COPY --from=builder /opt/tuinly /opt/tuinly
# The root file system is read-only in the cluster, so there is nowhere to put bytecode; pip has compiled it already.
ENV PATH=/opt/tuinly/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# A number, which Kubernetes can tell from root without a look into the image's /etc/passwd.
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["tuinly-operator"]
CMD ["run"]
