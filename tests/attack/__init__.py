"""Attacks on the whole product, as somebody outside would try them; one command runs all of it.

    pytest -m slow tests/attack

| file | what is done | what must hold |
|---|---|---|
| ``test_kills.py`` | SIGKILL at random moments in every verb that writes | the same command ends with the same bytes |
| ``test_stops.py`` | SIGTERM and Ctrl-C at random moments, a full disk | code, message, nothing half written; the end |
| ``test_mutations.py`` | files with bytes changed, cut and added | counted and named, or read as they are; no crash |
| ``test_races.py`` | two commands at once in one folder | one of them is refused by name, nothing is lost |
| ``test_planted_names.py`` | names, numbers and dates in files and headers | no output holds one of them |

Every draw is seeded. ``MONAI_CL_ATTACKS`` (2) is the number of random moments a verb, ``MONAI_CL_ATTACK_SEED`` (0)
draws other ones: ``MONAI_CL_ATTACKS=12 MONAI_CL_ATTACK_SEED=7 pytest -m slow tests/attack/test_kills.py``.
"""
