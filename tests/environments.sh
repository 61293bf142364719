#!/bin/sh
# The fast tests with the lowest versions that pyproject.toml allows, or with the newest that there are.
#
#   tests/environments.sh lowest|newest [argument of pytest ...]
#
# The environment is built, or renewed, in ENVIRONMENTS/<lowest|newest> (default: .environments in the project); each
# takes about 6 GB, because torch brings CUDA's libraries, and the download minutes. `uv`, which chooses the versions,
# goes into an environment of its own beside them. PYTHON (default: python3) is what they are built from.
set -eu
case "${1-}" in
lowest) resolution=lowest-direct ;;
newest) resolution=highest ;;
*) sed -n '2,8p' "$0" | cut -c3- >&2; exit 2 ;;
esac
which=$1
shift
cd "$(dirname "$0")/.."
base=${ENVIRONMENTS:-$PWD/.environments}
environment=$base/$which
free=$(($(df -kP "$(dirname "$base")" | awk 'NR == 2 {print $4}') / 1000000))
if [ ! -d "$environment" ] && [ "$free" -lt 14 ]; then
    echo "$free GB are free in $base, about 14 are needed for one environment and its downloads" >&2
    exit 1
fi
[ -x "$base/uv/bin/uv" ] || { "${PYTHON:-python3}" -m venv "$base/uv" && "$base/uv/bin/python" -m pip install --quiet uv; }
[ -x "$environment/bin/python" ] || "${PYTHON:-python3}" -m venv "$environment"
# uv does not follow pip's index.
UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-${PIP_INDEX_URL:-https://pypi.org/simple}} UV_CACHE_DIR=$base/downloads "$base/uv/bin/uv" pip install --quiet --native-tls --upgrade --resolution "$resolution" \
    --python "$environment/bin/python" --editable ".[dev]"
PATH=$environment/bin:$PATH
export PATH
"$base/uv/bin/uv" pip list --quiet --python "$environment/bin/python" | grep -E '^(torch|torchvision|numpy|dvc|mlflow|pydantic|scikit-learn) '
# The browser is no Python package: its tests say nothing about versions.
exec python -m pytest -m "not slow" -p no:cacheprovider --ignore tests/report/test_report_browser.py "$@"
