"""Built-in task distributions, one file per family. Each uses `metarl.tasks` alone, as a third party would."""
