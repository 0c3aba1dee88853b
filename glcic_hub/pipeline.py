"""GLCICPipeline: reads, completes, gives detail, blends, restores."""

from __future__ import annotations

import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple, NoReturn, TypeAlias, TypedDict, cast, overload

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from tqdm.auto import tqdm

from glcic_hub.completion.blending import blend_patches
from glcic_hub.completion.coarse_to_fine import complete_coarse_to_fine, out_of_reach
from glcic_hub.completion.completer import Completer, best_dtype, is_out_of_memory, open_device
from glcic_hub.completion.exemplars import complete_from_exemplars
from glcic_hub.completion.receptive_field import REACH
from glcic_hub.config import GLCICConfig
from glcic_hub.hub.model_files import DEFAULT_MODEL, load_model, packaged_model, save_model
from glcic_hub.idioms import COMPLETING, LOADING, SAVING, either, refuse
from glcic_hub.images.before_after import side_by_side
from glcic_hub.images.files import MAX_PIXELS
from glcic_hub.images.masks import hole_of, masks_of
from glcic_hub.images.processing import (
    AnyImage,
    ImageLike,
    OpenedImage,
    OutputType,
    as_type,
    is_batch,
    open_image,
    stack,
)
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
Dtype: TypeAlias = torch.dtype | Literal["auto", "float32", "bfloat16", "float16"]


class Settings(TypedDict, total=False):
    """Keyword arguments of `GLCICPipeline`, but for `output_type`."""

    mask_image: Masks
    blend: Blend | None
    detail: Detail | None
    invert_mask: bool
    large_holes: LargeHoles
    max_pixels: int
    callback: Callable[[int, Any], object] | None


class PushOptions(TypedDict, total=False):
    """Keyword arguments of `GLCICPipeline.push_to_hub`."""

    private: bool | None
    token: str | None
    revision: str | None
    tag: str | None
    create_pr: bool
    commit_message: str


DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

PIXELS_AT_ONCE = 2**22
"""Images of a list are opened until they have so many; equal regions of theirs go through the network together."""


class GLCICPipeline:
    """Fills holes in photographs and leaves the rest alone (Iizuka et al. 2017).

    Examples:
        >>> pipe = GLCICPipeline.from_pretrained()
        >>> completed = pipe("photo.jpg", "mask.png")

    Args:
        config: Architecture and mean pixel of the network.
        network: The trained completion network, batch normalisation not folded. It is kept as it is, for
            `save_pretrained`; a folded copy does the work. To edit it later, take it from the pipeline.
        device: Where to compute, such as `"cuda"` or `"cpu"`; None takes a CUDA GPU if there is one.
        dtype: Precision of the computation: `torch.float32`, `torch.bfloat16` or `torch.float16`, or its name;
            `"auto"` takes half precision where the device is faster in it, which changes the fill by less than a level
            of 255 on average.

    Raises:
        ValueError: The device cannot be used, or the dtype is another one.
    """

    def __init__(
        self,
        config: GLCICConfig,
        network: CompletionNetwork,
        *,
        device: str | torch.device | None = None,
        dtype: Dtype = "auto",
    ) -> None:
        self._config = config
        self._network = network
        self._network_may_change = False
        self._weights = "given"
        self._progress_bar: dict[str, Any] = {"disable": True}
        self._wanted_dtype = _checked_dtype(dtype)
        self._device = open_device(device)
        self._dtype = _dtype_on(self._device, self._wanted_dtype)
        self._completer = Completer(self._fold(self._device, self._dtype))

    @classmethod
    def from_pretrained(
        cls,
        model: str | Path | None = None,
        *,
        subfolder: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        force_download: bool = False,
        device: str | torch.device | None = None,
        dtype: Dtype | None = None,
        torch_dtype: Dtype | None = None,
        **others: NoReturn,
    ) -> GLCICPipeline:
        """Opens a trained model.

        Args:
            model: The name of weights that come with the package, `"compact"` for photographs of all kinds (None
                takes these) or `"faces"`; a folder that `save_pretrained` or the training wrote; or `user/name` on
                the Hub, of which config and completion network are downloaded, once.
            subfolder: Where in the folder or repository the model is, if not at its top.
            revision: Branch, tag or commit on the Hub.
            token: For private and gated models; None takes the one of `hf auth login` or `HF_TOKEN`, False none.
            cache_dir: Where downloads are kept; None takes the Hub's own cache.
            local_files_only: Take what the cache holds, without network access; so does `HF_HUB_OFFLINE=1`.
            force_download: Download anew what the cache holds.
            device: As for the class.
            dtype: As for the class; None is `"auto"`.
            torch_dtype: Another name of `dtype`.
            others: Refused; of what diffusers and transformers take, the message says what to do instead.

        Raises:
            FileNotFoundError: No such folder, model, revision or file; or not in the cache, without network access.
            PermissionError: The model is gated, or the token is refused.
            ValueError: The model's files are broken, do not fit each other or are pickles, or as for the class.
            OSError: The Hub cannot be reached or fails, or the disk is full.
        """
        refuse("from_pretrained", others, LOADING)
        wanted = _checked_dtype(either("dtype", dtype, "torch_dtype", torch_dtype) or "auto")
        model = DEFAULT_MODEL if model is None else model
        folder = packaged_model(model) if (subfolder, revision) == (None, None) else None
        if folder is None:
            from glcic_hub.hub.transfer import fetch_model  # the Hub's library takes 0.2 s to import

            folder = fetch_model(
                model,
                subfolder=subfolder,
                revision=revision,
                token=token,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
                force_download=force_download,
            )
        config, network = load_model(folder)
        pipe = cls(config, network, device=device, dtype=wanted)
        pipe._weights = f"{model}{f'/{subfolder}' if subfolder else ''}"
        pipe._weights += f"@{revision}" if revision else ""
        return pipe

    @property
    def config(self) -> GLCICConfig:
        """Architecture and mean pixel of the network."""
        return self._config

    @property
    def network(self) -> CompletionNetwork:
        """The completion network, batch normalisation not folded. If you edit it, the next call completes with it."""
        self._network_may_change = True
        return self._network

    @property
    def device(self) -> torch.device:
        """The device that computes; `to` changes it."""
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the computation; `to` changes it."""
        return self._dtype

    def __repr__(self) -> str:
        """Says which weights complete, and where."""
        width, device, dtype = self._config.width, str(self.device), self.dtype
        return f"GLCICPipeline(weights={self._weights!r}, width={width}, device={device!r}, dtype={dtype})"

    def to(self, device: str | torch.device | torch.dtype | None = None, dtype: Dtype | None = None) -> GLCICPipeline:
        """Computes elsewhere, or in another precision, from now on.

        Args:
            device: As for the class; or a dtype alone. None leaves it.
            dtype: As for the class; None leaves it, and `"auto"` goes with the device.

        Returns:
            The pipeline itself.

        Raises:
            ValueError: As for the class.
        """
        if dtype is None and (isinstance(device, torch.dtype) or device == "auto" or device in DTYPES):
            device, dtype = None, cast(Dtype, device)
        wanted = self._wanted_dtype if dtype is None else _checked_dtype(dtype)
        place = self._device if device is None else open_device(cast("str | torch.device", device))
        precision = _dtype_on(place, wanted)
        self._completer.network = self._fold(place, precision)  # first, as the device may lack the memory
        self._device, self._wanted_dtype, self._dtype = place, wanted, precision
        return self

    def _fold(self, device: torch.device, dtype: torch.dtype) -> CompletionNetwork:
        """Makes the copy of the network that does the work, and notes what it was made of."""
        self._made_of = _checksum(self._network)
        folded = fold_batch_norm(self._network).requires_grad_(False).to(device, dtype)
        return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]

    def save_pretrained(
        self,
        folder: str | Path,
        *,
        push_to_hub: bool = False,
        repo_id: str | None = None,
        **options: Unpack[PushOptions],
    ) -> str | None:
        """Writes `config.json` and `model.safetensors` (float32) into a folder, which is made if it does not exist.

        A model card is written, too, with an image that the model completed, unless the folder has one.

        Args:
            folder: A model in it is replaced.
            push_to_hub: Upload the model and its card, too.
            repo_id: As for `push_to_hub`; None takes the folder's name.
            options: As for `push_to_hub`. Of what diffusers and transformers take besides, the message says what to do
                instead.

        Returns:
            What `push_to_hub` returns, if there is a push.

        Raises:
            OSError: The folder cannot be made or written, or as for `push_to_hub`.
            ValueError: There are options of a push, and none; or as for `push_to_hub`.
            PermissionError: As for `push_to_hub`.
            FloatingPointError: The network gives NaN or infinity; the model is saved, without a card.
        """
        from glcic_hub.hub.card import CARD_FILE, write_card
        from glcic_hub.hub.transfer import copy_model, upload_model

        refuse("save_pretrained", [name for name in options if name not in PushOptions.__annotations__], SAVING)
        if not push_to_hub and (repo_id is not None or options):
            raise ValueError(f"{', '.join(options) or 'repo_id'} is of use with push_to_hub=True alone")
        folder = Path(folder)
        save_model(folder, self._config, self._network)
        if not (folder / CARD_FILE).exists():
            write_card(folder, self._config, card_image(self))
        if not push_to_hub:
            return None
        with tempfile.TemporaryDirectory() as name:
            copy_model(folder, Path(name))
            return upload_model(Path(name), repo_id or folder.resolve().name, **options)

    def push_to_hub(self, repo_id: str, **options: Unpack[PushOptions]) -> str:
        """Uploads config, completion network (float32), model card and an image it completed, in one commit.

        Args:
            repo_id: `user/name`, or `name` for one of your own; made if it does not exist.
            options: `private`: of a new repository; None takes the account's default. `token`: None takes the one of
                `hf auth login` or `HF_TOKEN`. `revision`: the branch to commit to, made if it does not exist.
                `tag`: a new tag for the commit, to load the model by. `create_pr`: propose the commit as a pull
                request. `commit_message`: its first line.

        Returns:
            The address of the commit, or of the pull request.

        Raises:
            ValueError: `repo_id` is not a name, the tag exists, or there is one for a pull request.
            PermissionError: There is no token, or it is refused.
            OSError: The Hub cannot be reached or fails.
        """
        with tempfile.TemporaryDirectory() as name:
            return cast(str, self.save_pretrained(name, push_to_hub=True, repo_id=repo_id, **options))

    def compile(self) -> None:
        """Compiles the network at its next use (`torch.compile`): minutes once, for calls that are faster on a GPU.

        Regions at the image's border, where the network pads by amounts that differ, run as they did. A pipeline that
        is pickled or copied arrives uncompiled.
        """
        self._completer.compile()

    def set_progress_bar_config(self, **options: Any) -> None:
        """Shows a progress bar for lists and batches, which is off by default.

        Args:
            options: What `tqdm` is given, such as `desc="photographs"`; `disable=True` switches the bar off again.
        """
        self._progress_bar = options

    @overload
    def __call__(
        self,
        image: PathOrPil,
        mask: Masks = ...,
        *,
        output_type: Literal["pil"] | None = ...,
        **settings: Unpack[Settings],
    ) -> Image.Image: ...

    @overload
    def __call__(
        self,
        image: NDArray[Any],
        mask: Masks = ...,
        *,
        output_type: Literal["np"] | None = ...,
        **settings: Unpack[Settings],
    ) -> NDArray[Any]: ...

    @overload
    def __call__(
        self,
        image: torch.Tensor,
        mask: Masks = ...,
        *,
        output_type: Literal["pt"] | None = ...,
        **settings: Unpack[Settings],
    ) -> torch.Tensor: ...

    @overload
    def __call__(
        self,
        image: ImageList,
        mask: Masks = ...,
        *,
        output_type: OutputType | None = ...,
        **settings: Unpack[Settings],
    ) -> list[AnyImage]: ...

    @overload
    def __call__(
        self, image: ImageLike, mask: Masks = ..., *, output_type: Literal["np"], **settings: Unpack[Settings]
    ) -> NDArray[Any]: ...

    @overload
    def __call__(
        self, image: ImageLike, mask: Masks = ..., *, output_type: Literal["pt"], **settings: Unpack[Settings]
    ) -> torch.Tensor: ...

    @overload
    def __call__(
        self,
        image: NDArray[Any] | torch.Tensor,
        mask: Masks = ...,
        *,
        output_type: Literal["pil"],
        **settings: Unpack[Settings],
    ) -> Image.Image | list[Image.Image]: ...

    def __call__(
        self,
        image: ImageLike | ImageList,
        mask: Masks = None,
        *,
        mask_image: Masks = None,
        detail: Detail | None = None,
        blend: Blend | None = None,
        invert_mask: bool = False,
        large_holes: LargeHoles = "coarse_to_fine",
        max_pixels: int = MAX_PIXELS,
        output_type: OutputType | None = None,
        callback: Callable[[int, Any], object] | None = None,
        **others: NoReturn,
    ) -> AnyImage | Sequence[AnyImage]:
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
            mask_image: Another name of `mask`.
            detail: `"exemplars"`: the network completes a small copy, and the hole gets the detail of what looks like
                that around it in the image. `"none"`: the network's fill at full size, as in the paper; it is soft.
                None: what the model's config says, which is exemplars for photographs of all kinds.
            blend: `"none"`: the fill as it is. `"poisson"`: blended into the surroundings (sec. 3.5), which is of use
                with `detail="none"`; exemplars have their seams levelled anyway. None: what the model's config says.
            invert_mask: Black, 0 or False = pixel to complete.
            large_holes: With `detail="none"`, what is done about a hole with pixels farther than 150 from anything
                known, which the network cannot complete (sec. 4.8). `"coarse_to_fine"`: it is completed in a smaller
                copy first. `"direct"`: nothing; a `UserWarning` says how much of the hole is out of reach.
            max_pixels: The most pixels that a file of an image or a mask may have. What they take of memory stands in
                `docs/images.md`.
            output_type: None: the image's own kind. `"pil"`: a PIL image, with 8 bits unless it was one, or a list of
                them. `"np"`: a float32 array in [0, 1], (H, W, 3), or (H, W, 4) if the image has alpha. `"pt"`: the
                same as a tensor (3, H, W) or (4, H, W).
            callback: Called after each image with its number, from 0 on, and the completed image; what it raises ends
                the call.
            others: Refused; of what diffusers and transformers take, the message says what to do instead.

        Returns:
            An image of the image's kind (a PIL image for a path or file), size, mode, alpha, EXIF orientation and ICC
            profile, equal to the image bit for bit outside the hole; a list for a list, a batch for a batch. Of modes
            two do not stay: I becomes I;16, and one colour that stands for transparency an alpha channel. The
            arguments are not changed. With an empty mask the image comes back unchanged, with a `UserWarning`. Where
            nothing around a hole can be copied, another says that it has the network's fill alone.

        Raises:
            FileNotFoundError: A file does not exist.
            ValueError: An image or mask cannot be read or is of a wrong kind, shape or range; the sizes differ; the
                mask covers everything; the lists are not of the same length; `detail`, `blend`, `large_holes` or
                `output_type` is unknown; there is no mask to invert; an argument has no meaning here.
            MemoryError: The image is too large for the device.
            FloatingPointError: The network gives NaN or infinity.
        """
        # 1. Check the arguments.
        refuse("GLCICPipeline", others, COMPLETING)
        mask = either("mask", mask, "mask_image", mask_image)
        detail = self._config.detail if detail is None else detail
        blend = self._config.blend if blend is None else blend
        for name, value, known in (
            ("detail", detail, ("exemplars", "none")),
            ("blend", blend, ("none", "poisson")),
            ("large_holes", large_holes, ("coarse_to_fine", "direct")),
            ("output_type", output_type, ("pil", "np", "pt", None)),
        ):
            if value not in known:
                *others_known, last = (f'"{one}"' if one else "None" for one in known)
                raise ValueError(f"{name} must be {', '.join(others_known)} or {last}, not {value!r}")

        # 2. Give each image its mask.
        several = isinstance(image, (list, tuple)) or is_batch(image)
        images = list(cast(Iterable[Any], image)) if several else [image]
        masks = masks_of(mask, len(images)) if several else [mask]

        # 3. Fold the network anew if it was edited; only who has asked for it can have done so.
        if self._network_may_change and self._made_of != _checksum(self._network):
            self._completer.network = self._fold(self._device, self._dtype)

        # 4. Open a few images at a time, and complete them.
        completed: list[AnyImage] = []
        opened: list[_Opened] = []
        bar = {"total": len(images), "unit": "image", **self._progress_bar} if several else {"disable": True}
        with tqdm(**bar) as progress:
            for number, (one_image, one_mask) in enumerate(zip(images, masks, strict=True), start=1):
                opened.append(_open(one_image, one_mask, invert_mask, detail, large_holes, max_pixels))
                if number < len(images) and sum(one.hole.size for one in opened) < PIXELS_AT_ONCE:
                    continue
                for result in self._complete(opened, detail, blend):
                    completed.append(result if output_type is None else as_type(result, output_type))
                    progress.update()
                    if callback is not None:
                        callback(len(completed) - 1, completed[-1])
                opened = []

        # 5. Return one image for one, a list for a list, a batch for a batch.
        if is_batch(image) and output_type != "pil":
            return stack(completed) if completed else image
        return completed if several else completed[0]

    def _complete(self, opened: Sequence[_Opened], detail: Detail, blend: Blend) -> Iterator[AnyImage]:
        """Completes several images, one after the other.

        The network alone takes ordinary holes of all together, and images with larger ones by themselves.
        """
        try:
            alone = detail == "none"
            sources = [(one.image.rgb, one.hole) for one in opened if alone and one.far is None]
            ordinary = iter(self._completer.complete(sources))
            for one in opened:
                if detail == "exemplars":
                    patches = complete_from_exemplars(self._completer, one.image.rgb, one.hole)
                elif one.far is None:
                    patches = next(ordinary)
                else:
                    patches = complete_coarse_to_fine(self._completer, one.image.rgb, one.hole, one.far)
                if blend == "poisson":
                    patches = blend_patches(one.image.rgb, patches, one.hole)
                yield one.image.put(patches, one.opaque)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            sizes = ", ".join(f"{one.hole.shape[1]}x{one.hole.shape[0]}" for one in opened)
            raise MemoryError(f"not enough memory on {self.device} for {sizes} pixels") from None


def _checked_dtype(dtype: Dtype) -> torch.dtype | Literal["auto"]:
    """Returns a dtype, also of its name, or `"auto"`; refuses all else."""
    wanted = DTYPES.get(dtype, dtype) if isinstance(dtype, str) else dtype
    if wanted not in ("auto", *DTYPES.values()):
        raise ValueError(
            f'dtype must be "auto", torch.float32, torch.bfloat16, torch.float16 or one of their names, not {dtype!r}'
        )
    return cast("torch.dtype | Literal['auto']", wanted)


def _dtype_on(device: torch.device, wanted: torch.dtype | Literal["auto"]) -> torch.dtype:
    return best_dtype(device) if wanted == "auto" else wanted


def _checksum(network: nn.Module) -> int:
    """Computes a number that changes if parameters or buffers do."""
    checksum = 0
    for tensor in (*network.parameters(), *network.buffers()):
        checksum = zlib.crc32(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data, checksum)
    return checksum


def card_image(pipe: GLCICPipeline) -> Image.Image:
    """Makes the image of a model's card: a sample with its hole, as the model completes it, and as it was.

    A model that completes by its network alone gets a face.
    """
    image, mask = load_sample("face" if pipe.config.detail == "none" else "rocket")
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
