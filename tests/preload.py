"""What a run imports, imported once for all processes that the tests fork."""

import importlib.util
import os

# the engine sets these before it imports vLLM, which reads them then
os.environ |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_CONFIGURE_LOGGING": "0"}
for module in ("hydra", "rlrt.config.assembly", "rlrt.config.resume", "rlrt.eval", "vllm"):
    if importlib.util.find_spec(module) is not None:
        importlib.import_module(module)
