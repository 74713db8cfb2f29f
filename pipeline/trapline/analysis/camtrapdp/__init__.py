"""analysis/camtrapdp."""
