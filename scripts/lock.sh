#!/bin/sh
# Compiles requirements/*.txt from pyproject.toml: exact versions with hashes, without index URLs.
set -eu
cd "$(dirname "$0")/.."
lock() {
    out=$1; shift
    uv pip compile pyproject.toml --quiet --universal --python-version 3.11 \
        --generate-hashes --no-header --no-annotate --no-emit-index-url -o "requirements/$out" "$@"
}
lock run.txt
# run.txt and the SDK of Stripe, for the container image
lock stripe.txt --extra stripe -c requirements/run.txt
# run.txt and the client of S3, for the container image
lock s3.txt --extra s3 -c requirements/run.txt
# run.txt and all extras but the embedded servers, for the container image
lock all.txt --extra otel --extra pdf --extra s3 --extra sentry --extra stripe -c requirements/run.txt
lock build.txt --group build
lock relocate.txt --extra relocation
lock serve.txt --extra embedded --group build
lock dev.txt --extra all --group build --group dev
# the generator and the tests of the Python client
(cd clients/python && uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --group dev \
    --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements.txt)
