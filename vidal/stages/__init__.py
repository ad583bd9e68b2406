"""The catalogue of the steps that a recipe can use by name."""

from __future__ import annotations

import difflib
import importlib

from vidal import extras
from vidal.errors import RecipeError
from vidal.stage import Step

# As text: naming a stage imports neither it nor the libraries of its model.
CATALOGUE: dict[str, str] = {
    "fetch": "vidal.stages.fetch:Fetch",
    "keep_source": "vidal.stages.keep_source:KeepSource",
    "probe": "vidal.stages.probe:Probe",
    "segments": "vidal.stages.segments:Segments",
    "cut_segment": "vidal.stages.cut_segment:CutSegment",
    "media": "vidal.stages.media:Media",
    "blur_faces": "vidal.stages.blur_faces:BlurFaces",
    "too_short": "vidal.stages.filters.too_short:TooShort",
    "too_long": "vidal.stages.filters.too_long:TooLong",
    "too_small": "vidal.stages.filters.too_small:TooSmall",
    "too_static": "vidal.stages.filters.too_static:TooStatic",
    "too_dark": "vidal.stages.filters.too_dark:TooDark",
    "too_blurry": "vidal.stages.filters.too_blurry:TooBlurry",
    "too_much_text": "vidal.stages.filters.too_much_text:TooMuchText",
    "damaged": "vidal.stages.filters.damaged:Damaged",
    "no_text": "vidal.stages.filters.no_text:NoText",
    "no_video": "vidal.stages.filters.no_video:NoVideo",
    "no_audio": "vidal.stages.filters.no_audio:NoAudio",
    "wrong_language": "vidal.stages.filters.wrong_language:WrongLanguage",
    "wrong_licence": "vidal.stages.filters.wrong_licence:WrongLicence",
    "hash_list": "vidal.stages.hash_list:HashList",
    "not_admissible": "vidal.stages.filters.not_admissible:NotAdmissible",
    "fingerprints": "vidal.stages.fingerprints:Fingerprints",
    "duplicates": "vidal.stages.duplicates:Duplicates",
    "per_uploader": "vidal.stages.per_uploader:PerUploader",
    "clean_title": "vidal.stages.text.clean_title:CleanTitle",
    "ocr": "vidal.stages.text.ocr:Ocr",
    "speech": "vidal.stages.text.speech:Speech",
    "frame_captions": "vidal.stages.text.frame_captions:FrameCaptions",
    "sound_caption": "vidal.stages.text.sound_caption:SoundCaption",
    "enhance_caption": "vidal.stages.text.enhance_caption:EnhanceCaption",
    "repeated_captions": "vidal.stages.repeated_captions:RepeatedCaptions",
    "text_match": "vidal.stages.text.text_match:TextMatch",
    "embeddings": "vidal.stages.text.embeddings:Embeddings",
    "decontaminate": "vidal.stages.decontaminate:Decontaminate",
    "semantic_duplicates": "vidal.stages.semantic_duplicates:SemanticDuplicates",
    "best_share": "vidal.stages.best_share:BestShare",
    "depth": "vidal.stages.modalities.depth:Depth",
    "infrared": "vidal.stages.modalities.infrared:Infrared",
}


def step_class(name: str) -> type[Step]:
    """Return the class of a step by its catalogue name or, for a stage of your own, ``package.module:Class``.

    Raises `ValueError` for an unknown name and `TypeError` if the class is not a step.
    """
    module_name, colon, class_name = CATALOGUE.get(name, name).partition(":")
    if not colon:
        raise ValueError(f"{name} is neither in the catalogue nor of the form package.module:Class")
    step = getattr(importlib.import_module(module_name), class_name)
    if not (isinstance(step, type) and issubclass(step, Step)):
        raise TypeError(f"{name} is not a stage")
    return step


def named_step(name: str) -> type[Step]:
    """`step_class` of a name that a user wrote; raises `RecipeError` with the nearest names where there is none."""
    try:
        return step_class(name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        # A stage that exists and lacks an optional package: the extra to install helps, a similar name does not.
        if isinstance(error, ImportError) and extras.explained(error, name):
            raise
        near = difflib.get_close_matches(name, CATALOGUE, n=1)
        hint = f"did you mean `{near[0]}`?" if near else f"known: {', '.join(CATALOGUE)}"
        because = f" ({error})" if ":" in name else ""
        raise RecipeError(f"no stage `{name}`{because}; {hint}") from None
