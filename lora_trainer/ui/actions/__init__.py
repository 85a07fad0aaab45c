"""What the tab's buttons do, one file a panel: functions of the desk and of what the page holds."""
