"""Which weights of the model are trained: kohya's rule, or one of LyCORIS' presets."""

from __future__ import annotations

from dataclasses import dataclass

from lora_trainer.config import NetworkConfig
from lora_trainer.families import Family, traits
from lora_trainer.network.targets import TRANSFORMERS, WITH_RESIDUALS, Role, Target

_TEXT: frozenset[Role] = frozenset({"text attention", "text mlp"})
_FULL: frozenset[Role] = WITH_RESIDUALS | {"ends", "time"}
_IA3 = ("to_k", "to_v", "ff_net_2", "k_proj", "v_proj", "mlp_fc2")  # keys, values and the last of each feedforward

PRESETS: dict[str, frozenset[Role]] = {  # lycoris/config.py
    "full": _FULL | _TEXT,
    "full-lin": (_FULL - {"ends"}) | _TEXT,
    "attn-mlp": TRANSFORMERS | _TEXT,
    "attn-only": frozenset({"attention", "text attention"}),
    "unet-only": _FULL,
    "unet-transformer-only": TRANSFORMERS,
    "unet-convblock-only": frozenset({"residual", "ends"}),
    "ia3": TRANSFORMERS | _TEXT,
}


@dataclass(frozen=True)
class Chosen:
    """The roles of the weights that are trained, and what decides beside the role."""

    roles: frozenset[Role]
    endings: tuple[str, ...] = ("",)  # of the keys
    large_kernels: bool = True

    @classmethod
    def of(cls, config: NetworkConfig, family: Family, convolutions: bool) -> Chosen:
        """What a configuration trains.

        Args:
            convolutions: whether any convolution has a rank: kohya's sign for the residual blocks.
        """
        preset = config.lycoris_preset or ("ia3" if config.algo == "ia3" else "")
        roles = PRESETS[preset] if preset else (WITH_RESIDUALS if convolutions else TRANSFORMERS) | _TEXT
        if traits(family).ldm_keys:
            roles -= {"ends", "time"}  # LyCORIS knows them by their diffusers names, which SDXL's files don't use
        if config.train_norm:
            norms: dict[Role, Role] = {"transformer": "transformer norm", "residual": "residual norm"}
            roles |= {norm for role, norm in norms.items() if role in roles}
        return cls(roles, _IA3 if preset == "ia3" else ("",), preset != "full-lin")

    def has(self, target: Target) -> bool:
        """Whether a target is trained."""
        suits = target.key.endswith(self.endings) and (self.large_kernels or not target.large_kernel)
        return target.role in self.roles and suits
