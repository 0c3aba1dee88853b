"""GLCICPipeline: reads, completes, gives detail, blends, restores."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, TypeAlias, TypedDict, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from glcic_hub.completion.blending import blend_patches
from glcic_hub.completion.coarse_to_fine import complete_coarse_to_fine, out_of_reach
from glcic_hub.completion.completer import Completer, best_dtype, is_out_of_memory, open_device
from glcic_hub.completion.exemplars import complete_from_exemplars
from glcic_hub.completion.receptive_field import REACH
from glcic_hub.config import GLCICConfig
from glcic_hub.hub.model_files import load_model, save_model
from glcic_hub.images.before_after import side_by_side
from glcic_hub.images.files import MAX_PIXELS
from glcic_hub.images.masks import hole_of, masks_of
from glcic_hub.images.processing import AnyImage, ImageLike, OpenedImage, is_batch, open_image, stack
from glcic_hub.images.samples import load_sample
from glcic_hub.networks import CompletionNetwork, fold_batch_norm

if TYPE_CHECKING:
    from typing_extensions import Unpack

PathOrPil: TypeAlias = str | Path | BinaryIO | Image.Image
Blend = Literal["none", "poisson"]
Detail = Literal["exemplars", "none"]
LargeHoles = Literal["coarse_to_fine", "direct"]
ImageList: TypeAlias = list[Any] | tuple[Any, ...]  # of ImageLike; lists are invariant
Masks: TypeAlias = ImageLike | ImageList | None


class Settings(TypedDict, total=False):
    """Keyword arguments of `GLCICPipeline`."""

    blend: Blend
    detail: Detail
    invert_mask: bool
    large_holes: LargeHoles
    max_pixels: int


PIXELS_AT_ONCE = 2**22
"""Images of a list are opened until they have so many; equal regions of theirs go through the network together."""

PRETRAINED = Path(__file__).parent / "pretrained"


class GLCICPipeline:
    """Fills holes in photographs and leaves the rest alone (Iizuka et al. 2017).

    Examples:
        >>> pipe = GLCICPipeline.from_pretrained()
        >>> completed = pipe("photo.jpg", "mask.png")

    Args:
        config: Architecture and mean pixel of the network.
        network: The trained completion network, batch normalisation not folded. It is kept as it is, for
            `save_pretrained`; a folded copy does the work.
        device: Where to compute, such as `"cuda"` or `"cpu"`; None takes a CUDA GPU if there is one.
        dtype: Precision of the computation: `torch.float32`, `torch.bfloat16` or `torch.float16`; `"auto"` takes half
            precision where the device is faster in it, which changes the fill by less than a level of 255 on average.

    Raises:
        ValueError: The device cannot be used, or the dtype is another one.
    """

    def __init__(
        self,
        config: GLCICConfig,
        network: CompletionNetwork,
        *,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] = "auto",
    ) -> None:
        if dtype not in ("auto", torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f'dtype must be "auto", torch.float32, torch.bfloat16 or torch.float16, not {dtype!r}')
        self.config = config
        self.network = network
        self.device = open_device(device)
        self.dtype = best_dtype(self.device) if dtype == "auto" else dtype
        folded = fold_batch_norm(network).requires_grad_(False).to(self.device, self.dtype)
        self._completer = Completer(folded.to(memory_format=torch.channels_last))  # type: ignore[call-overload]

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device | None = None,
        dtype: torch.dtype | Literal["auto"] = "auto",
    ) -> GLCICPipeline:
        """Opens a trained model.

        Args:
            model: A folder that `save_pretrained` or the training wrote; or `user/name` on the Hub, of which config
                and completion network are downloaded, once; None takes the weights that come with the package,
                without network access.
            revision: Branch, tag or commit on the Hub.
            token: For private and gated models; None takes the one of `hf auth login` or `HF_TOKEN`, False none.
            cache_dir: Where downloads are kept; None takes the Hub's own cache.
            local_files_only: Take what the cache holds, without network access; so does `HF_HUB_OFFLINE=1`.
            force_download: Download anew what the cache holds.
            device: As for the class.
            dtype: As for the class.

        Raises:
            FileNotFoundError: No such folder, model, revision or file; or not in the cache, without network access.
            PermissionError: The model is gated, or the token is refused.
            ValueError: The model's files are broken, do not fit each other or are pickles, or as for the class.
            OSError: The Hub cannot be reached or fails, or the disk is full.
        """
        from glcic_hub.hub.transfer import fetch_model  # the Hub's library takes a while to import

        folder = fetch_model(
            PRETRAINED if model is None else model,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            force_download=force_download,
        )
        config, network = load_model(folder)
        return cls(config, network, device=device, dtype=dtype)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` and `model.safetensors` (float32) into a folder, which is made if it does not exist.

        Raises:
            OSError: The folder cannot be made or written.
        """
        save_model(Path(folder), self.config, self.network)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        token: str | None = None,
        create_pr: bool = False,
        commit_message: str = "Model of glcic-hub",
    ) -> str:
        """Uploads config, completion network (float32), model card and an image it completed, in one commit.

        Args:
            repo_id: `user/name`, or `name` for one of your own; made if it does not exist.
            private: Of a new repository; None takes the account's default.
            token: None takes the one of `hf auth login` or `HF_TOKEN`.
            create_pr: Propose the commit as a pull request.
            commit_message: Its first line.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ValueError: `repo_id` is not a name.
            PermissionError: There is no token, or it is refused.
            OSError: The Hub cannot be reached or fails.
        """
        from glcic_hub.hub.card import write_card
        from glcic_hub.hub.transfer import upload_model

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            self.save_pretrained(folder)
            write_card(folder, self.config, card_image(self))
            return upload_model(folder, repo_id, commit_message, private=private, token=token, create_pr=create_pr)

    def compile(self) -> None:
        """Compiles the network at its next use (`torch.compile`): minutes once, for calls that are faster on a GPU.

        Regions at the image's border, where the network pads by amounts that differ, run as they did.
        """
        self._completer.compile()

    @overload
    def __call__(self, image: PathOrPil, mask: Masks = ..., **settings: Unpack[Settings]) -> Image.Image: ...

    @overload
    def __call__(self, image: NDArray[Any], mask: Masks = ..., **settings: Unpack[Settings]) -> NDArray[Any]: ...

    @overload
    def __call__(self, image: torch.Tensor, mask: Masks = ..., **settings: Unpack[Settings]) -> torch.Tensor: ...

    @overload
    def __call__(self, image: ImageList, mask: Masks = ..., **settings: Unpack[Settings]) -> list[AnyImage]: ...

    def __call__(
        self,
        image: ImageLike | ImageList,
        mask: Masks = None,
        *,
        detail: Detail = "exemplars",
        blend: Blend = "none",
        invert_mask: bool = False,
        large_holes: LargeHoles = "coarse_to_fine",
        max_pixels: int = MAX_PIXELS,
    ) -> AnyImage | list[AnyImage]:
        """Completes one image, or a list or batch of them.

        Args:
            image: A path or a file opened for reading; a PIL image; a NumPy array (H, W, 3), (H, W, 1), (H, W, 4) or
                (H, W); or a tensor (3, H, W), (1, H, W), (4, H, W) or (H, W). RGB, grey, or RGB and alpha; uint8, or
                float in [0, 1] outside the hole. Any size from 4×4 pixels on. Or a list of these; or a batch, an
                array or a tensor with an axis more at the front.
            mask: White, 1 or True = pixel to complete. The same kinds with one channel or three equal ones; the size
                is the image's as it is displayed, that is, turned as its EXIF orientation says. Any number of holes of
                any shape. Soft masks count from 0.2 on. None takes the pixels that are not fully opaque, which come
                back opaque. For a list or batch of images, one mask for all, or a list or batch of as many.
            detail: `"exemplars"`: the network completes a small copy, and the hole gets the detail of what looks like
                that around it in the image. `"none"`: the network's fill at full size, as in the paper; it is soft.
            blend: `"none"`: the fill as it is. `"poisson"`: blended into the surroundings (sec. 3.5), which is of use
                with `detail="none"`; exemplars have their seams levelled anyway.
            invert_mask: Black, 0 or False = pixel to complete.
            large_holes: With `detail="none"`, what is done about a hole with pixels farther than 150 from anything
                known, which the network cannot complete (sec. 4.8). `"coarse_to_fine"`: it is completed in a smaller
                copy first. `"direct"`: nothing; a `UserWarning` says how much of the hole is out of reach.
            max_pixels: The most pixels that a file of an image or a mask may have. What they take of memory stands in
                `docs/images.md`.

        Returns:
            An image of the image's kind (a PIL image for a path or file), size, mode, alpha, EXIF orientation and ICC
            profile, equal to the image bit for bit outside the hole; a list for a list, a batch for a batch. Of modes
            two do not stay: I becomes I;16, and one colour that stands for transparency an alpha channel. The
            arguments are not changed. With an empty mask the image comes back unchanged, with a `UserWarning`. Where
            nothing around a hole can be copied, another says that it has the network's fill alone.

        Raises:
            FileNotFoundError: A file does not exist.
            ValueError: An image or mask cannot be read or is of a wrong kind, shape or range; the sizes differ; the
                mask covers everything; the lists are not of the same length; `detail`, `blend` or `large_holes` is
                unknown; there is no mask to invert.
            MemoryError: The image is too large for the device.
            FloatingPointError: The network gives NaN or infinity.
        """
        if detail not in ("exemplars", "none"):
            raise ValueError(f'detail must be "exemplars" or "none", not {detail!r}')
        if blend not in ("none", "poisson"):
            raise ValueError(f'blend must be "none" or "poisson", not {blend!r}')
        if large_holes not in ("coarse_to_fine", "direct"):
            raise ValueError(f'large_holes must be "coarse_to_fine" or "direct", not {large_holes!r}')
        several = isinstance(image, (list, tuple)) or is_batch(image)
        images = list(cast(Iterable[Any], image)) if several else [image]
        masks = masks_of(mask, len(images)) if several else [mask]
        completed: list[AnyImage] = []
        opened: list[_Opened] = []
        for number, (one_image, one_mask) in enumerate(zip(images, masks, strict=True), start=1):
            opened.append(_open(one_image, one_mask, invert_mask, detail, large_holes, max_pixels))
            if number == len(images) or sum(one.hole.size for one in opened) >= PIXELS_AT_ONCE:
                completed += self._complete(opened, detail, blend)
                opened = []
        if is_batch(image):
            return stack(completed)
        return completed if several else completed[0]

    def _complete(self, opened: Sequence[_Opened], detail: Detail, blend: Blend) -> list[AnyImage]:
        """Completes several images.

        The network alone takes ordinary holes of all together, and images with larger ones by themselves.
        """
        try:
            alone = detail == "none"
            sources = [(one.image.rgb, one.hole) for one in opened if alone and one.far is None]
            ordinary = iter(self._completer.complete(sources))
            completed = []
            for one in opened:
                if detail == "exemplars":
                    patches = complete_from_exemplars(self._completer, one.image.rgb, one.hole)
                elif one.far is None:
                    patches = next(ordinary)
                else:
                    patches = complete_coarse_to_fine(self._completer, one.image.rgb, one.hole, one.far)
                if blend == "poisson":
                    patches = blend_patches(one.image.rgb, patches, one.hole)
                completed.append(one.image.put(patches, one.opaque))
            return completed
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            sizes = ", ".join(f"{one.hole.shape[1]}x{one.hole.shape[0]}" for one in opened)
            raise MemoryError(f"not enough memory on {self.device} for {sizes} pixels") from None


def card_image(pipe: GLCICPipeline) -> Image.Image:
    """The image of a model's card: a sample photograph with its hole, as the model completes it, and as it was."""
    image, mask = load_sample("rocket")
    return side_by_side(image, mask, pipe(image, mask))


class _Opened(NamedTuple):
    """An image and what is to be completed of it."""

    image: OpenedImage
    hole: NDArray[np.bool_]
    far: NDArray[np.bool_] | None  # pixels for which the network alone needs a smaller copy, if there are any
    opaque: bool  # what is completed becomes opaque


def _open(
    image: Any, mask: Any, invert_mask: bool, detail: Detail, large_holes: LargeHoles, max_pixels: int
) -> _Opened:
    if mask is None and invert_mask:
        raise ValueError("there is no mask to invert: none was given")
    opened = open_image(image, max_pixels=max_pixels)
    hole = hole_of(opened, mask, invert=invert_mask, max_pixels=max_pixels)
    height, width = opened.rgb.shape[:2]
    if hole.shape != (height, width):
        raise ValueError(
            f"the image is {width}x{height} pixels as displayed and the mask {hole.shape[1]}x{hole.shape[0]}; "
            "they must be equal"
        )
    opened = opened.without(hole)
    hint = "; if black marks the hole, invert the mask (invert_mask=True, --invert-mask)" if mask is not None else ""
    if hole.all():
        raise ValueError(f"the mask covers the whole image, so there is nothing to complete it from{hint}")
    if not hole.any():
        warnings.warn(f"the mask is empty, so the image is returned unchanged{hint}", stacklevel=3)
        return _Opened(opened, hole, None, False)
    if detail == "exemplars":  # the network sees a copy in which it reaches everything
        return _Opened(opened, hole, None, mask is None)
    far = out_of_reach(hole)
    if far.any() and large_holes == "direct":
        warnings.warn(
            f"{far.sum() / hole.sum():.0%} of the hole is farther than {REACH} pixels from anything known, "
            'and will be blurry; use large_holes="coarse_to_fine"',
            stacklevel=3,
        )
    return _Opened(opened, hole, far if far.any() and large_holes != "direct" else None, mask is None)
