"""The sections of a run's configuration. An algorithm's section is the `Config` of its package."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny, ValidationInfo, WithJsonSchema

from metarl.algorithms.base import AlgorithmPlugin, EvaluationSettings, Section
from metarl.algorithms.registry import available_algorithms, load_algorithm
from metarl.rollout.types import Context

Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
STORED = {"is_stored": True}  # the validation context of configurations that run directories hold


def _refuse_test(split: str, info: ValidationInfo) -> str:
    """Test tasks are for `metarl evaluate` alone; runs of earlier versions were watched on them."""
    if split == "test" and not (info.context or {}).get("is_stored"):
        raise ValueError(
            "'test' is for `metarl evaluate` alone, so that no setting and no checkpoint is chosen by the tasks that "
            "the result is judged on; allowed: 'validation' or 'ood'"
        )
    return split


WatchedSplit = Annotated[
    Literal["validation", "ood", "test"],
    AfterValidator(_refuse_test),
    WithJsonSchema({"enum": ["validation", "ood"], "type": "string"}),
]


class TaskDistributionConfig(Section):
    """Which tasks."""

    name: str = Field(description="a registered task distribution, or module:attr")
    options: dict[str, Any] = Field({}, description="keyword arguments of the task distribution")
    reveal_task: bool = Field(False, description="the oracle baseline: observations hold the task's parameters")
    hold_out_validation: bool = Field(True, description="never train on validation tasks; false: there are none")


class TrainingConfig(Section):
    """How long training takes, and what is written on the way."""

    iterations: Count = Field(description="meta-updates; the run ends after so many")
    env_steps_limit: Count | None = Field(None, description="the run ends with the iteration that reaches so many")
    time_limit_minutes: Positive | None = Field(None, description="training wall time, added up over resumes")
    checkpoint_every: Count = Field(25, description="iterations between checkpoints")
    keep_checkpoints: Count = Field(3, description="newest checkpoints kept")
    evaluate_every: Annotated[int, Field(ge=0)] = Field(50, description="iterations between evaluations; 0: none")
    overlap: bool = Field(False, description="collect while learning, with weights one update old (off-policy)")
    tasks_per_unit: Count = Field(5, description="tasks that a worker collects on in one call; part of the result")


class EvaluationConfig(Section):
    """How a policy is judged, during training and by `metarl evaluate`."""

    num_tasks: Count = Field(20, description="tasks drawn from the split")
    split: WatchedSplit = Field("validation", description="whose tasks are evaluated on during training, and by sweeps")
    deterministic: bool = Field(True, description="judged actions are means, or most likely actions, not samples")
    episodes: Count | None = Field(None, description="judged episodes per task; null: the algorithm's own number")
    support_episodes: Annotated[int, Field(ge=0)] | None = Field(
        None, description="episodes per task adapted to before the judged ones; null: the algorithm's own number"
    )
    rounds: Count | None = Field(None, description="rounds of a trial, the last one judged; null: the algorithm's own")
    context: Context = Field("own", description="what adaptation is worth: blank gives none, shuffled another task's")

    @property
    def settings(self) -> EvaluationSettings:
        """What the algorithm is asked for."""
        return EvaluationSettings(self.episodes, self.support_episodes, self.rounds, self.deterministic, self.context)


class ExecutorConfig(Section):
    """Where units run. Never part of the result."""

    backend: Literal["ray", "local"] = Field("ray", description="Ray actors, or this process")
    num_workers: Count | None = Field(None, description="rollout workers; null: one per free processor")
    unit_deadline_s: Positive = Field(120.0, description="a unit that takes longer is tried again elsewhere")


class RunConfig(Section):
    """Everything that a run is made of."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of all random numbers")
    task_distribution: TaskDistributionConfig = Field(description="which tasks")
    algorithm: SerializeAsAny[BaseModel] = Field(description="which algorithm, and its settings")
    training: TrainingConfig = Field(description="how long, and what is written on the way")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="how a policy is judged")
    executor: ExecutorConfig = Field(ExecutorConfig(), description="where units run")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="the learner's; auto: a GPU where there is one")

    @property
    def algorithm_name(self) -> str:
        """The name that every section of an algorithm has."""
        name: str = self.algorithm.name  # type: ignore[attr-defined]
        return name


def json_schema() -> dict[str, Any]:
    """The JSON schema of a configuration, the sections of all registered algorithms included."""
    schema = RunConfig.model_json_schema()
    definitions = schema.setdefault("$defs", {})
    choices = []
    for name in available_algorithms():
        found = load_algorithm(name)
        if not isinstance(found, AlgorithmPlugin):
            continue
        section = found.config.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
        for inner, definition in section.pop("$defs", {}).items():
            definitions[f"{name}.{inner}"] = definition
        section["properties"]["name"] = {"const": name, "description": "the algorithm"}
        definitions[name] = section
        choices.append({"$ref": f"#/$defs/{name}"})
    schema["properties"]["algorithm"] = {"description": "which algorithm, and its settings", "anyOf": choices}
    return schema
