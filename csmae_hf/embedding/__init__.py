"""From images to embeds: the loop over a data set, its shards, alignment and diagnostics."""
