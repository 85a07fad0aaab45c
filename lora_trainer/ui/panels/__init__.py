"""The panels of the tab, one file each: ``show`` is what it shows, ``ask`` what it asks the server.

A further panel is one more file here (and, where it asks, one in :mod:`lora_trainer.ui.actions`), named once in
:mod:`lora_trainer.ui.tab`. Its inputs stand in a column with the elem_id ``lora_trainer_panel_NAME``, and
``form.follow(NAME, inputs)`` makes every change of them known.
"""
