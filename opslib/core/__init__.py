"""Ground floor: errors, configuration, records, files, locks, lineage, secrets and plans."""
