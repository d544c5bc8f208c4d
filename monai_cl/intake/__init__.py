"""From folders of scans to a datalist: headers, verdicts, pseudonyms."""
