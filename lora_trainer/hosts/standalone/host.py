"""The stand-alone host: one checkpoint file and one folder of LoRAs, no WebUI."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lora_trainer.dtypes import DTYPES, MIXED_PRECISIONS
from lora_trainer.errors import ConfigError, HostBusyError, LoraTrainerError, quoted
from lora_trainer.families import PredictionType
from lora_trainer.files import file_sha256
from lora_trainer.hosts.base import GeneratedImage, GenerateRequest, Glance, ModelInfo, SoleUser
from lora_trainer.hosts.frozen import frozen
from lora_trainer.hosts.standalone.detect import Detected, detect
from lora_trainer.hosts.standalone.generation import check
from lora_trainer.hosts.standalone.loras import LoraShelf
from lora_trainer.hosts.standalone.model import DiffusersModel, PictureSettings
from lora_trainer.hosts.standalone.parts import Parts, build_parts, fingerprint
from lora_trainer.hosts.standalone.prompt import split_prompt
from lora_trainer.lora_folder import find_lora
from lora_trainer.noise_schedule import linear_in_root


def best_device() -> torch.device:
    """CUDA (or ROCm) if there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _dtype(precision: str, device: torch.device) -> torch.dtype:
    if precision not in MIXED_PRECISIONS:
        raise ConfigError(f"mixed_precision can't be {quoted(precision)}; choose one of {', '.join(MIXED_PRECISIONS)}.")
    if precision == "fp16" and device.type == "cpu":
        raise ConfigError("mixed_precision fp16 needs a GPU; choose bf16 or no.")
    return DTYPES[precision]


class DiffusersHost(SoleUser):
    """A checkpoint file of SD 1.x, SD 2.x or SDXL on diffusers' modules; see :class:`lora_trainer.hosts.base.Host`.

    Args:
        checkpoint: the file; ``NAME.yaml`` beside it is its config, as in AUTOMATIC1111.
        lora_dir: where LoRA files are looked up and where finished ones go.
        device: None for the best one.
        vae: a file to take the VAE from instead.
        prediction_type: None for what the checkpoint says (config beside it, ``modelspec.prediction_type``, the
            ``v_pred`` tensor) and, for an SD 2.x that says nothing, what running its UNet shows.
        clip_skip: for pictures; which layer of an SD 1.x text encoder is used.
        zero_terminal_snr: sample with the zero-SNR schedule; None for what the checkpoint says.
        precision: for pictures outside training; None for fp16 on CUDA and fp32 elsewhere.
    """

    name = "diffusers"

    def __init__(
        self,
        checkpoint: Path,
        lora_dir: Path,
        *,
        device: torch.device | str | None = None,
        vae: Path | None = None,
        prediction_type: PredictionType | None = None,
        clip_skip: int = 1,
        zero_terminal_snr: bool | None = None,
        precision: str | None = None,
    ) -> None:
        self.checkpoint, self.lora_dir = Path(checkpoint), Path(lora_dir)
        self.device = torch.device(device) if device is not None else best_device()
        self._vae, self._prediction_type, self._clip_skip = vae, prediction_type, clip_skip
        self._zero_terminal_snr = zero_terminal_snr
        self._dtype = _dtype(precision or ("fp16" if self.device.type == "cuda" else "no"), self.device)
        self._shelf = LoraShelf(self.lora_dir)
        self._lock, self._loading = threading.Lock(), threading.Lock()
        self._model: DiffusersModel | None = None
        self._glance: tuple[int, Glance] | None = None  # with the file's time of change

    def info(self) -> ModelInfo:
        """What the checkpoint is; reads it whole at the first call.

        Raises:
            UnsupportedModelError, FileError: in one sentence, if it can't be used.
        """
        return self._load().info

    def glance(self) -> Glance | None:
        """What the checkpoint's header says; the file is looked into again when it has changed."""
        try:
            stamp = self.checkpoint.stat().st_mtime_ns
        except OSError:
            stamp = 0
        if self._glance is None or self._glance[0] != stamp:
            self._glance = (stamp, self._look())
        return self._glance[1]

    def _look(self) -> Glance:
        try:
            found = detect(self.checkpoint)
        except LoraTrainerError as error:
            return Glance(self.checkpoint.name, refusal=str(error))
        predicts = self._prediction_type or found.prediction_type or "epsilon"
        return Glance(
            self.checkpoint.name, found.family, found.resolution(predicts), prediction_type=predicts,
            marks=found.marks, checkpoint_path=str(self.checkpoint.absolute()),
        )  # fmt: skip

    def defaults(self) -> dict[str, Any]:
        """Zero SNR, for a checkpoint that says so itself."""
        glance = self.glance()
        return {"zero_terminal_snr": True} if glance is not None and glance.marks.zero_snr else {}

    @contextmanager
    def take(self, mixed_precision: str) -> Iterator[DiffusersModel]:
        """Lend the model for training, its weights in ``mixed_precision`` (no, fp16, bf16) on the device.

        Raises:
            HostBusyError: if it is lent already.
            ConfigError: if the device can't train in that precision.
        """
        dtype = _dtype(mixed_precision, self.device)
        with self._borrowed() as model, frozen(self._modules(model)):
            try:
                model.begin(dtype)
                yield model
            finally:
                model.put_back()

    def generate(self, request: GenerateRequest) -> GeneratedImage:
        """Make a picture; ``<lora:NAME:weight>`` in the prompt takes NAME from ``lora_dir``."""
        return self.generate_many([request])[0]

    def generate_many(self, requests: Sequence[GenerateRequest], batch_size: int = 8) -> list[GeneratedImage]:
        """Make several pictures, in batches where they agree in everything but prompt and seed.

        Raises:
            HostBusyError: while the model is lent for training; it can generate itself then.
        """
        with self._borrowed() as model:
            model.dtype = self._dtype
            return model.generate_many(requests, batch_size)

    def check(self, request: GenerateRequest) -> None:
        """Refuse sizes, samplers and LoRAs (missing, broken, for another family) that can't be used.

        Raises:
            ConfigError, FileError: in one sentence.
        """
        check(request)
        for tag in split_prompt(request.prompt)[1]:
            self.lora_modules(find_lora(tag.name, self.lora_dir))

    def refresh_loras(self, changed: Sequence[Path] = ()) -> None:
        """Forget the LoRA files that were read (all, or those in ``changed``)."""
        self._shelf.forget(changed)

    def lora_modules(self, path: Path) -> int | None:
        """How many modules of a LoRA file find their place in this model.

        Raises:
            FileError: if it can't be read or is for another family.
        """
        return self._shelf.modules(path, self._load())

    def free(self) -> None:
        """Give the device's memory back; the next use places the weights again."""
        if self._model is not None:
            with self._borrowed() as model:
                model.put_back()
        self._shelf.forget()

    @contextmanager
    def _borrowed(self) -> Iterator[DiffusersModel]:
        if not self._lock.acquire(blocking=False):
            raise HostBusyError("The model is in use; wait until the run or the image is finished, or stop it.")
        try:
            yield self._load()
        finally:
            self._lock.release()

    def _load(self) -> DiffusersModel:
        with self._loading:
            if self._model is None:
                self._model = self._read()
            return self._model

    def _read(self) -> DiffusersModel:
        found = detect(self.checkpoint)
        parts = build_parts(found, self._vae, self._prediction_type)
        alphas = linear_in_root(found.config.linear_start, found.config.linear_end)
        zero_snr = bool(found.marks.zero_snr) if self._zero_terminal_snr is None else self._zero_terminal_snr
        pictures = PictureSettings(self._clip_skip, zero_snr)
        info = self._describe(found, parts)
        return DiffusersModel(parts, info, alphas, self.device, pictures, self._shelf.attached)

    def _describe(self, found: Detected, parts: Parts) -> ModelInfo:
        layouts = repr([encoder.layout for encoder in parts.text_encoders])
        return ModelInfo(
            family=found.family,
            prediction_type=parts.prediction_type,
            naming="diffusers",
            checkpoint=self.checkpoint.name,
            checkpoint_sha256=file_sha256(self.checkpoint),
            vae=self._vae.name if self._vae else "",
            vae_sha256=file_sha256(self._vae) if self._vae else "",
            vae_fingerprint=fingerprint(parts.vae, settings=str(parts.vae.config.scaling_factor)),
            text_fingerprint=fingerprint(*parts.text_encoders, settings=layouts),
            resolution=found.resolution(parts.prediction_type),
            checkpoint_path=str(self.checkpoint.absolute()),
            vae_path=str(self._vae.absolute()) if self._vae else "",
        )

    @staticmethod
    def _modules(model: DiffusersModel) -> list[torch.nn.Module]:
        return [module for modules in model.parts.modules.values() for module in modules]
