# Both stages start from one image, because the venv that is copied points at its interpreter. The tag moves with Debian's
# and Python's security fixes; for a build that is the same to the byte, pass --build-arg PYTHON_IMAGE=python@sha256:...
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

# The dependencies are a layer of their own, so a change of the code does not fetch them again. The venv has no pip:
# the builder's own installs into it.
COPY requirements/run.txt requirements/build.txt requirements/
RUN python -m venv --without-pip /opt/rollback-watchdog \
    && pip --python /opt/rollback-watchdog/bin/python install --no-compile --require-hashes -r requirements/run.txt \
    && pip install --require-hashes -r requirements/build.txt

COPY pyproject.toml README.md LICENSE ./
COPY watchdog/ watchdog/
# Compiled here, once, and never checked against the sources: the final file system is read-only.
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && pip --python /opt/rollback-watchdog/bin/python install --no-compile --no-deps --no-index /wheels/*.whl \
    && python -m compileall -q --invalidation-mode unchecked-hash /opt/rollback-watchdog/lib

FROM ${PYTHON_IMAGE}
LABEL org.opencontainers.image.title="rollback-watchdog" \
      org.opencontainers.image.description="Undoes bad rollouts of plain Kubernetes Deployments, and says why" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/rollback-watchdog /opt/rollback-watchdog
# HOME, because kubernetes_asyncio asks for it when imported, and a user without a name has none of its own.
ENV PATH=/opt/rollback-watchdog/bin:$PATH HOME=/ PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
# A number, so that Kubernetes can hold runAsNonRoot against it.
USER 65532:65532
ENTRYPOINT ["rollback-watchdog"]
CMD ["--help"]
