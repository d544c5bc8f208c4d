"""Scan of folders into a datalist: headers, verdicts, pseudonyms."""
