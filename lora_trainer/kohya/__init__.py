"""kohya's configurations, both ways: the JSON of the LoRA form, and sd-scripts' option names, as TOML or JSON."""

from lora_trainer.kohya.exporter import KohyaExport, export_kohya, save_kohya, to_kohya
from lora_trainer.kohya.fields import notices_on_fields
from lora_trainer.kohya.importer import KohyaImport, LoadedConfig, load_config, load_kohya
from lora_trainer.kohya.toml_export import export_toml, save_toml

__all__ = [
    "KohyaExport",
    "KohyaImport",
    "LoadedConfig",
    "export_kohya",
    "export_toml",
    "load_config",
    "load_kohya",
    "notices_on_fields",
    "save_kohya",
    "save_toml",
    "to_kohya",
]
