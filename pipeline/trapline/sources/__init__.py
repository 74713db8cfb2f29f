"""Turn inputs into shards and shards into records, one per image; may import storage, config and errors only."""
