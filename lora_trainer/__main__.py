"""``python -m lora_trainer``; also what ``accelerate launch -m lora_trainer`` starts in every process."""

import sys

from lora_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
