"""A run's configuration: YAML and dotted overrides -> validated frozen objects.

schema.py    the sections and their fields
baselines.py what a run's adaptation is compared with
load.py      finding, reading, validating, writing
overrides.py key.sub=value
commented.py a configuration with the meaning of its keys
scalars.py   YAML's scalars without surprises
messages.py  what is wrong with a key, in one line
migrate.py   configurations of runs that earlier versions made
"""

from metarl.config.baselines import baselines_of
from metarl.config.commented import to_commented_yaml
from metarl.config.load import (
    available_configs,
    changes,
    chosen_names,
    config_path,
    differences,
    load_config,
    load_stored_config,
    load_task_distribution,
    to_yaml,
)
from metarl.config.overrides import set_keys
from metarl.config.schema import (
    EvaluationConfig,
    ExecutorConfig,
    RunConfig,
    TaskDistributionConfig,
    TrainingConfig,
    json_schema,
)

__all__ = [
    "EvaluationConfig",
    "ExecutorConfig",
    "RunConfig",
    "TaskDistributionConfig",
    "TrainingConfig",
    "available_configs",
    "baselines_of",
    "changes",
    "chosen_names",
    "config_path",
    "differences",
    "json_schema",
    "load_config",
    "load_stored_config",
    "load_task_distribution",
    "set_keys",
    "to_commented_yaml",
    "to_yaml",
]
