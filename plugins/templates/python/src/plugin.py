"""Delivers orders that are worth the trouble, without the note that is for us alone."""

import json
from typing import Any

from failure import Failure, or_fail
from wit_world import exports
from wit_world.imports import event, log
from wit_world.imports.types import (
    CallContext,
    Edit,
    Manifest,
    NewData_Edits,
    Output,
    Reason,
    Verdict,
    Verdict_Drop,
    Verdict_Replace,
)

SCHEMA = {
    "type": "object",
    "properties": {
        "minimum": {"type": "number", "description": "The smallest amount that is delivered"},
    },
    "required": ["minimum"],
    "additionalProperties": False,
}

# Set by `configure`. Each run has an interpreter of its own, so it is this step's and nobody else's.
minimum: float = 0


class Lifecycle(exports.Lifecycle):
    def describe(self) -> Manifest:
        return Manifest(
            name="{{name}}",
            version="0.1.0",
            summary="Drops small orders and takes the internal note out of the others",
            config_schema=json.dumps(SCHEMA),
            reads=None,
        )

    def configure(self, config: str) -> None:
        global minimum
        minimum = json.loads(config)["minimum"]


class Transform(exports.Transform):
    @or_fail
    def transform(self, context: CallContext) -> Verdict:
        amount = value_at("/amount")
        # To Python, `True` is a number too.
        if not isinstance(amount, int | float) or isinstance(amount, bool):
            raise Failure("no-amount", "the event's data have no number at `/amount`")
        if amount < minimum:
            return Verdict_Drop(Reason("too-small", None))

        log.log(log.Level.INFO, f"an order of {amount}")
        edits: list[Edit] = []
        if event.get("/internal_note") is not None:
            edits.append(Edit("/internal_note", None))
        return Verdict_Replace(
            Output(set=[("checkedby", "{{name}}")], unset=[], data=NewData_Edits(edits))
        )


def value_at(pointer: str) -> Any:
    """The value at a JSON Pointer into the event's data; `None` where there is none."""
    found = event.get(pointer)
    return None if found is None else json.loads(found)
