#!/usr/bin/env bash
# Lints the recorded OpenAPI document with Redocly and Spectral. A warning is a failure too.
set -euo pipefail
document=$(realpath "${1:?"usage: run.sh DOCUMENT"}")
cd "$(dirname "$0")"
# no usage statistics, and no question for newer versions
export REDOCLY_TELEMETRY=off REDOCLY_SUPPRESS_UPDATE_NOTICE=true SCARF_ANALYTICS=false

node_modules/.bin/redocly lint "$document" --config redocly.yaml --format stylish
node_modules/.bin/spectral lint "$document" --ruleset spectral.yaml --fail-severity warn
