"""What holds for every test: generated examples get as long as they need, and a failure can be repeated."""

import hypothesis

# A deadline per example measures the machine, not the code.
hypothesis.settings.register_profile("house", deadline=None, print_blob=True)
hypothesis.settings.load_profile("house")
