"""Which word pivotal tuning learns: the trigger word, as the captions have it."""

from __future__ import annotations

from lora_trainer.config import RunConfig
from lora_trainer.dataset.items import Dataset
from lora_trainer.errors import ConfigError, quoted


def word_to_learn(config: RunConfig, trigger: str, dataset: Dataset) -> str:
    """The trigger word, or the first word of the dataset's only folder; "" where none is learned.

    Raises:
        ConfigError: if it isn't clear which, or no caption has it, so that nothing would be learned.
    """
    if not config.network.pivotal_tuning:
        return ""
    folders = {item.folder.trigger.strip().partition(" ")[0] for item in dataset.items if not item.is_reg}
    word = trigger.strip() or (folders.pop() if len(folders) == 1 else "")
    if not word:
        raise ConfigError(
            "pivotal_tuning learns the trigger word, and the folders have several; give the trigger word."
        )
    if not any(word in line for item in dataset.items for line in item.captions):
        raise ConfigError(
            f"pivotal_tuning learns the trigger word, and no caption has {quoted(word)}; write it into the captions, "
            "or switch pivotal_tuning off."
        )
    return word
