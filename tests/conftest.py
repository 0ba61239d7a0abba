"""What holds for all tests."""

from hypothesis import settings

# No example may fail for being slow: the machine may be busy with other things. A hanging test meets pytest-timeout.
settings.register_profile("shared-machine", deadline=None)
settings.load_profile("shared-machine")
