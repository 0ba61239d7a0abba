"""What every layer may use: the settings, the log, clocks, names, and strings that do not show what they hold."""
