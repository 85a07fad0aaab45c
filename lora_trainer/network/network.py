"""The adapters of a whole model: from a configuration or a file, attached to the model and detached from it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lora_trainer.config import RunConfig
from lora_trainer.errors import ConfigError, FileError
from lora_trainer.hosts.base import ModelInfo, TextEncoder
from lora_trainer.network import attention
from lora_trainer.network.adapter import Adapter, Control, parameters_of
from lora_trainer.network.attaching import attached
from lora_trainer.network.blocks import BlockPlan
from lora_trainer.network.chosen import Chosen
from lora_trainer.network.embedding import PREFIX, EmbeddingModule, learned_word, words_of_file
from lora_trainer.network.file import LoraFile, read_lora
from lora_trainer.network.groups import NormReport, limit_norms, parameter_groups
from lora_trainer.network.kinds import create
from lora_trainer.network.matching import match
from lora_trainer.network.targets import EVERYTHING, Target, text_targets, unet_targets


class LoraNetwork:
    """All LoRA layers of a model.

    Use it as a context manager (or :meth:`attach` and :meth:`detach`) around forward passes of the model. The model's
    own weights are never written.

    Attributes:
        modules: the layers, text encoders first.
        notices: lines that the user should read, such as parts of a file that this model doesn't have.
    """

    def __init__(self, modules: Sequence[Adapter], control: Control) -> None:
        self.modules = list(modules)
        self.control = control
        self.notices: list[str] = []
        self.beneath: Sequence[LoraNetwork] = ()  # frozen ones that belong to the base model as long as this is used
        self._with_it: contextlib.ExitStack = contextlib.ExitStack()
        self.is_attached = False  # whether it takes part in the model's forward passes now
        by_module: dict[int, dict[str, Adapter]] = {}
        for module in self.modules:
            if module.target.slot:
                by_module.setdefault(id(module.target.module), {})[module.target.slot] = module
        self._attentions = list(by_module.values())

    @classmethod
    def create(
        cls,
        unet: nn.Module,
        text_encoders: Sequence[TextEncoder],
        info: ModelInfo,
        config: RunConfig,
        seed: int,
        word: str = "",
    ) -> LoraNetwork:
        """A new network that changes nothing yet, or one that continues ``network_weights``.

        Args:
            word: that ``pivotal_tuning`` learns.

        Raises:
            ConfigError: if the configuration leaves nothing to train or its lists don't suit the model.
            FileError: if network_weights can't be read or doesn't fit.
            UnsupportedModelError: if the model's parts aren't named as known models' are.
        """
        options = config.network
        plan = BlockPlan.of(options, info.family)
        file = read_lora(Path(options.network_weights)) if options.network_weights else None
        chosen = Chosen.of(options, info.family, plan.convolutions)
        roles = EVERYTHING if options.dim_from_weights else chosen.roles
        targets = text_targets(text_encoders, info) if config.trains_text_encoder else []
        targets += unet_targets(unet, info, roles) if config.trains_unet else []
        control = Control(
            network_dropout=options.network_dropout,
            rank_dropout=options.rank_dropout,
            module_dropout=options.module_dropout,
        )
        if file is not None and options.dim_from_weights:
            network = cls._of_file(file, targets, info, control, plan)
        else:
            modules: list[Adapter] = []
            for target in filter(chosen.has, targets):
                rank, alpha = plan.rank_and_alpha(target)
                if rank:
                    modules.append(create(target, rank, alpha, control, seed, options))
            network = cls(modules, control)
            if modules and file is not None:
                network._continue(file, info)
        if not network.modules:
            raise ConfigError(
                "Nothing would be trained: every block has rank 0 or learning-rate factor 0; raise one of them."
            )
        for module in network.modules:
            module.lr_factor = plan.factor(module.target)
        known = file.words if file is not None else {}
        if options.pivotal_tuning:
            continued = words_of_file(known, text_encoders, control, Path(options.network_weights))
            own = [module for module in continued if module.key == f"{PREFIX}{word}"]
            network.modules[:0] = own or learned_word(word, text_encoders, control)
            if lost := sorted({module.key.removeprefix(PREFIX) for module in continued} - {word}):
                network.notices.append(
                    f"The word that {Path(options.network_weights).name} has learned, {', '.join(lost)}, isn't taken "
                    f"over: the trigger word is {word}."
                )
        elif known:
            network.notices.append(
                f"The word that {Path(options.network_weights).name} has learned isn't taken over; switch "
                "pivotal_tuning on to go on with it."
            )
        return network

    @classmethod
    def from_file(
        cls, path: Path, unet: nn.Module, text_encoders: Sequence[TextEncoder], info: ModelInfo
    ) -> LoraNetwork:
        """The network of a LoRA file, for generating; ``notices`` tells what of the file this model has no place for.

        Raises:
            FileError: if the file can't be read or is for another model family.
        """
        targets = text_targets(text_encoders, info) + unet_targets(unet, info, EVERYTHING)
        file, control = read_lora(path), Control(training=False)
        network = cls._of_file(file, targets, info, control)
        network.modules[:0] = words_of_file(file.words, text_encoders, control, path)
        return network

    @classmethod
    def _of_file(
        cls,
        file: LoraFile,
        targets: Sequence[Target],
        info: ModelInfo,
        control: Control,
        plan: BlockPlan | None = None,
    ) -> LoraNetwork:
        matches, notices = match(file, targets, info)
        modules = [
            matches[target.key].adapter(target, control, file.path)
            for target in targets
            if target.key in matches and (plan is None or plan.factor(target) > 0)
        ]
        network = cls(modules, control)
        network.notices = notices
        return network

    def _continue(self, file: LoraFile, info: ModelInfo) -> None:
        """Start from a file's weights; where its alpha isn't the configured one, the change is the same."""
        matches, self.notices = match(file, [module.target for module in self.modules], info)
        for module in self.modules:
            weights = matches.get(module.key)
            if weights is None:
                continue
            if (made := weights.label) != module.label:
                raise FileError(
                    f"network_weights {file.path} is a {made} at {module.key}, the configuration makes a "
                    f"{module.label}; switch dim_from_weights on or choose the same network type (algo, dora_wd, "
                    "use_tucker)."
                )
            if weights.rank != module.rank:
                raise FileError(
                    f"network_weights {file.path} has rank {weights.rank} at {module.key}, the configuration "
                    f"{module.rank}; switch dim_from_weights on or set the same rank."
                )
            module.copy_from(weights, file.path)
        fresh = sum(module.key not in matches for module in self.modules)
        if fresh:
            self.notices.append(
                f"Not in {file.path.name}, so trained from scratch: {fresh} of {len(self.modules)} modules."
            )

    def attach(self) -> LoraNetwork:
        """Add the LoRA to the model's forward passes from now on."""
        if self.is_attached:
            raise RuntimeError("The network is attached already.")
        self.is_attached = True
        try:
            self._with_it.enter_context(attached(self.beneath))
            for module in self.modules:
                if not module.target.slot:
                    module.attach()
            for layers in self._attentions:
                attention.attach(next(iter(layers.values())).target.module, layers)
        except BaseException:
            self.detach()
            raise
        return self

    def detach(self) -> None:
        """Leave the model as it was before :meth:`attach`; harmless when not attached."""
        for layers in self._attentions:
            attention.detach(next(iter(layers.values())).target.module, layers)
        for module in self.modules:
            module.detach()
        self._with_it.close()
        self.control.inputs.clear()
        self.is_attached = False

    def __enter__(self) -> LoraNetwork:
        return self.attach()

    def __exit__(self, *exc: object) -> None:
        self.detach()

    @property
    def count(self) -> int:
        """How many of its modules any program applies: all but learned words."""
        return sum(not isinstance(module, EmbeddingModule) for module in self.modules)

    @property
    def multiplier(self) -> float:
        """Strength; at 0 the model's own output comes out bit for bit."""
        return self.control.multiplier

    @multiplier.setter
    def multiplier(self, value: float) -> None:
        self.control.multiplier = value

    def begin_step(self, *key: int | str, samples: Sequence[int] = (0,)) -> None:
        """Say which step comes, so that its dropout depends on nothing else.

        Args:
            key: identifies the step, such as (seed, step).
            samples: the batch's uses of images, numbered over the whole run, so that an image's dropout doesn't depend
                on which process trains it.
        """
        self.control.step_key = key
        self.control.samples = tuple(samples)

    @contextlib.contextmanager
    def inference(self, multiplier: float = 1.0) -> Iterator[None]:
        """Without dropout and at a strength of choice; puts both back at the end."""
        before = (self.control.training, self.control.multiplier)
        self.control.training, self.control.multiplier = False, multiplier
        try:
            yield
        finally:
            self.control.training, self.control.multiplier = before
            self.control.inputs.clear()

    @contextlib.contextmanager
    def left_out(self) -> Iterator[None]:
        """The base model's own output, bit for bit, though the network stays attached."""
        before, self.control.enabled = self.control.enabled, False
        try:
            yield
        finally:
            self.control.enabled = before
            self.control.inputs.clear()

    def parameters(self) -> list[nn.Parameter]:
        """All weights, in the order of the modules."""
        return parameters_of(self.modules)

    def parameter_groups(self, config: RunConfig) -> list[dict[str, Any]]:
        """Groups for the optimiser; see :func:`lora_trainer.network.groups.parameter_groups`."""
        return parameter_groups(self.modules, config)

    def scale_weight_norms(self, largest: float) -> NormReport:
        """Keep every module's change within a norm; see :func:`lora_trainer.network.groups.limit_norms`."""
        return limit_norms(self.modules, largest)

    def to(self, device: torch.device | str) -> LoraNetwork:
        """Move the weights; before the optimiser is made."""
        for module in self.modules:
            module.to(device)
        return self

    def state_dict(self, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
        """Copies of all weights and alphas on the CPU under kohya's keys and in the file's shapes."""
        tensors: dict[str, Tensor] = {}
        for module in self.modules:
            for name, weight in module.file_parts().items():
                tensors[f"{module.key}.{name}"] = weight.to("cpu", dtype, copy=True).contiguous()
        return tensors

    def load_state_dict(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over the weights that :meth:`state_dict` gave for the same model and configuration.

        Raises:
            FileError: if a weight is missing, left over or has another shape.
        """
        expected = {name: tensor.shape for name, tensor in self.state_dict().items()}
        given = {name: tensor.shape for name, tensor in tensors.items()}
        if expected != given:
            odd = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
            raise FileError(
                f"The saved state doesn't fit this configuration ({len(odd)} weights differ, first {odd[0]}); "
                "start again without --resume, or restore the settings."
            )
        for module in self.modules:
            module.take_parts({name: tensors[f"{module.key}.{name}"] for name in module.file_parts()})
