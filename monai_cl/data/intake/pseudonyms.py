"""The former place of :mod:`monai_cl.privacy.pseudonyms`."""

from monai_cl.privacy.pseudonyms import KEY_VARIABLE, Key, find_or_make_key, key_path, new_key, read_key

__all__ = ["KEY_VARIABLE", "Key", "find_or_make_key", "key_path", "new_key", "read_key"]
