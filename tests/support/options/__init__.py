"""What every option of the table changes in a run of two steps; for tests/training/test_options_reach_the_run.py."""
