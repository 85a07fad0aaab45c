"""Numbers of the verdict. All were fitted by ``make calibrate`` on half of its concepts; docs/verdict.md has the table.

They are relative: to the base model's own errors and pictures, and to the training images. Whether they carry over to a
checkpoint of another size is not known yet, and the report says so.
"""

from __future__ import annotations

# Share of pictures that show the concept: 1 ÷ (1 + exp(−(first + second · gain + third · likeness)))
ACCURACY_BY_GAIN = (-3.67, 2.17)
ACCURACY_BY_BOTH = (-3.94, 1.62, 1.99)
# Share of facts that known things keep: 1 ÷ (1 + exp(−(first + second · drift)))
INTEGRITY_BY_DRIFT = (3.88, -9.43)

LEARNT, NOT_LEARNT = 0.65, 0.5  # accuracy from which it is, and below which it isn't
INTACT, DAMAGED = 0.85, 0.8  # of integrity
LOUD = 1.6  # deviation of latents against the base model's: burnt
