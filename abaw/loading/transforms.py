"""Random changes of a clip's pixels, the same for all its frames; the one door to albumentations."""

import os
import random
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw.errors import UsageError
from abaw.randomness import Purpose, keyed_generator


@dataclass(frozen=True, kw_only=True)
class ClipAugmentation:
    """Changes a whole clip by one random draw, which the clip's own seed decides alone.

    The defaults are the paper's: brightness and contrast, flip, blur, sharpening. Shift, scale, rotation
    and dropped boxes are off until they are given a probability.

    Attributes:
        p_brightness_contrast: Probability that brightness and contrast change.
        brightness_contrast: Largest change of either, as a share.
        p_flip: Probability that left and right are swapped.
        p_blur: Probability of a Gaussian blur.
        blur: Smallest and largest kernel, odd, in pixels.
        p_sharpen: Probability of sharpening.
        p_affine: Probability that the face is shifted, scaled and rotated.
        shift: Largest shift, as a share of the side.
        scale: Largest change of size, as a share.
        rotate: Largest rotation, in degrees.
        p_boxes: Probability that black boxes hide a part.
        n_boxes: Largest number of boxes.
        box: Largest side of a box, as a share of the side.
    """

    p_brightness_contrast: float = 0.3
    brightness_contrast: float = 0.2
    p_flip: float = 0.5
    p_blur: float = 0.3
    blur: tuple[int, int] = (3, 7)
    p_sharpen: float = 0.3
    p_affine: float = 0.0
    shift: float = 0.05
    scale: float = 0.1
    rotate: float = 10.0
    p_boxes: float = 0.0
    n_boxes: int = 2
    box: float = 0.3

    def __post_init__(self) -> None:
        shares = ("brightness_contrast", "shift", "scale", "box")
        for name in (*shares, *(field for field in self.__dataclass_fields__ if field.startswith("p_"))):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"data.augmentation.{name} is between 0 and 1, got {getattr(self, name)}")
        small, large = self.blur
        if not (3 <= small <= large and small % 2 and large % 2):
            raise UsageError(f"data.augmentation.blur is two odd numbers from 3, ascending, got {self.blur}")
        if self.n_boxes < 1 or self.rotate < 0:
            raise UsageError(
                f"data.augmentation needs n_boxes >= 1 and rotate >= 0, got {self.n_boxes} and {self.rotate}"
            )

    def __call__(self, clip: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
        """Gives the changed clip, uint8 (T, H, W, 3); it may be the input itself, so write in neither.

        Args:
            clip: uint8 (T, H, W, 3), RGB, T at least 1.
            seed: From 0; the same seed gives the same change.
        """
        # one stream shared by all transforms: with a generator each, their coins would agree
        pipeline = _pipeline(self)
        pipeline.set_random_state(keyed_generator(Purpose.AUGMENTATION, seed), random.Random(seed))
        changed: NDArray[np.uint8] = pipeline(images=clip)["images"]
        return changed


@cache
def _pipeline(settings: ClipAugmentation) -> Any:
    """Built at the first clip, once per process; kept beside the settings, which stay plain values."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")  # else the import asks the network for news
    import albumentations as A

    with warnings.catch_warnings():  # an argument it does not know would be replaced by its default
        warnings.filterwarnings("error", message=".*not valid for transform.*")
        return A.Compose(
            [
                A.RandomBrightnessContrast(
                    brightness_limit=settings.brightness_contrast,
                    contrast_limit=settings.brightness_contrast,
                    p=settings.p_brightness_contrast,
                ),
                _frame_by_frame(A.HorizontalFlip)(p=settings.p_flip),
                A.GaussianBlur(blur_limit=settings.blur, p=settings.p_blur),
                A.Sharpen(p=settings.p_sharpen),
                _frame_by_frame(A.Affine)(
                    translate_percent=(-settings.shift, settings.shift),
                    scale=(1 - settings.scale, 1 + settings.scale),
                    rotate=(-settings.rotate, settings.rotate),
                    p=settings.p_affine,
                ),
                A.CoarseDropout(
                    num_holes_range=(1, settings.n_boxes),
                    hole_height_range=(settings.box / 3, settings.box),
                    hole_width_range=(settings.box / 3, settings.box),
                    fill=0,  # "random" would draw for every frame
                    p=settings.p_boxes,
                ),
            ]
        )


def _frame_by_frame(transform: Any) -> Any:
    """The transform with a loop over frames, where its own way with clips is to transpose them: the same
    output, three to ten times faster.
    """

    def apply_to_images(self: Any, images: NDArray[np.uint8], *_: Any, **params: Any) -> NDArray[np.uint8]:
        return np.stack([self.apply(image, **params) for image in images])

    return type(transform.__name__, (transform,), {"apply_to_images": apply_to_images})
