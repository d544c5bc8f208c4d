"""Small inputs that an early version got wrong, made here, and what is right for each of them.

``makers.py`` makes the inputs, ``test_labels.py``, ``test_intake.py`` and ``test_steps.py`` say what must become of
them. ``test_made_elsewhere.py`` asks the same of inputs that a script outside of this folder makes, where there is one.
"""
